"""What is given to the library is looked at as what is given to the command line is: one line names the right call."""

import inspect
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from plain import TEXTS, loaded
from transformers import LlamaConfig, LlamaForSequenceClassification, LlamaModel

import hydrascope as hs
from hydrascope.models.language_model import LanguageModel
from hydrascope.runs.config import SweepConfig
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return loaded()


def test_what_is_measured_by_default_is_the_same_everywhere() -> None:
    """It stands in each signature, for whoever reads one."""
    expected = {each.name: each.default for each in fields(SweepConfig)}
    given = inspect.signature(hs.sweep).parameters
    assert {name: given[name].default for name in expected} == expected


class Nothing:
    """An ablation in name only."""

    patches = 1


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ablation": hs.Zero}, r"Zero is a class: give one of its objects, Zero\(…\)"),
        ({"ablation": "zero"}, r'^"zero" is no ablation: give hs.Resample\(\), hs.Zero\(\), '),
        ({"ablation": Nothing()}, "is no ablation"),
        ({"ablation": hs.Resample("3")}, "patches cannot be '3': give a whole number"),  # type: ignore[arg-type]
        ({"ablation": hs.Resample(2.5)}, "patches cannot be 2.5"),  # type: ignore[arg-type]
        ({"ablation": hs.Resample(True)}, "patches cannot be True"),
        ({"ablation": hs.Resample(2, seed=-1)}, "-1 seed: give a number from 0 on"),
        ({"ablation": hs.Noise(2, scale="3")}, "3 is no scale of noise"),  # type: ignore[arg-type]
        ({"ablation": hs.Noise(2, scale=float("nan"))}, "nan is no scale of noise"),
        ({"ablation": hs.Noise(2, scale=1e-300)}, "lost in the rounding of float64 embeddings: give at least 2e-16"),
        ({"readouts": "logit"}, r'^"logit" is no readout: give hs.Logit\(\)'),
        ({"readouts": hs.Logit}, "Logit is a class"),
        ({"readouts": [hs.Logit(), None]}, "None.* is no readout"),
        ({"readouts": [hs.Direction("north")]}, "'direction' is no vector of numbers"),
        ({"readouts": [hs.Direction(np.ones(32), before=1.5)]}, "no block 1.5"),  # type: ignore[arg-type]
        ({"readouts": [hs.Placebo(10**15)]}, "1000000000000000 placebo tokens: ask for 1 to 58"),
        ({"readouts": [hs.Placebo("4")]}, "'4' placebo tokens"),  # type: ignore[arg-type]
        ({"metrics": 5}, "unknown metric 5"),
        ({"metrics": [None]}, "unknown metric None"),
        ({"target": True}, "unknown target True"),
        ({"target": 1.0}, "unknown target 1.0"),
        ({"target": None}, "unknown target None"),
        ({"at": None}, "'None' is no position"),
        ({"at": 1.5}, "'1.5' is no position"),
        ({"at": []}, "'' is no position"),
        ({"ablate": None}, "None is no component of a model: give labels such as 'heads'"),
        ({"ablate": 3}, "3 is no component of a model"),
        ({"read": [["attn.1"]]}, r"\['attn.1'\] is no component of a model"),
        ({"batch_size": "5"}, "a batch of '5' prompts"),
        ({"batch_size": 2.0}, "a batch of 2.0 prompts"),
        ({"engine": None}, "unknown engine None"),
        ({"keep": None}, "unknown keep None"),
    ],
)
def test_wrong_arguments_name_the_right_call(model: LanguageModel, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(HydrascopeError, match=message):
        hs.sweep(model, TEXTS, **{"ablation": hs.Zero(), **arguments})


def test_a_model_that_is_not_loaded(model: LanguageModel) -> None:
    for given in ("gpt2", None):
        with pytest.raises(HydrascopeError, match=r"is no model to measure: give hs.load_model\(model, tokenizer\)"):
            hs.sweep(given, TEXTS, hs.Zero())  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [5, None, {"prompt": "a"}, b"ab", str, ["a", None], [4, 5], [[]], [["a"]], [b"ab"]])
def test_what_is_no_prompt(model: LanguageModel, given: Any) -> None:
    with pytest.raises(HydrascopeError, match=r"^prompts"):
        hs.sweep(model, given, hs.Zero())


@pytest.mark.parametrize("token", [-1, 61, 10**20])
def test_tokens_that_the_embedding_lacks(model: LanguageModel, token: int) -> None:
    with pytest.raises(HydrascopeError, match=f"has token {token}, llama knows 0 to 60"):
        hs.sweep(model, [[4, token]], hs.Zero())


def test_tokens_beyond_an_embedding_that_is_smaller_than_its_configuration_says() -> None:
    model = loaded()
    model.config.vocab_size = 100
    with pytest.raises(HydrascopeError, match="has token 80, llama knows 0 to 60"):
        hs.sweep(model, [[4, 80]], hs.Zero())


def test_a_single_text_is_one_prompt(model: LanguageModel) -> None:
    for prompts in ("the cat", hs.Prompt("the cat"), ["the cat"]):
        results = hs.sweep(model, prompts, hs.Zero())
        assert list(results["text"].values) == ["the cat"]
    mediated = hs.analyses.mediation(model, "the cat", hs.Zero(), ablate="attn.1", mediators="mlp.2")
    assert list(mediated["text"].values) == ["the cat"]


def test_a_batch_larger_than_anything_is_all_prompts(model: LanguageModel) -> None:
    results = hs.sweep(model, TEXTS, hs.Zero(), batch_size=10**20)
    assert results.attrs["batch_size"] == len(TEXTS)


def test_models_that_can_not_be_measured() -> None:
    config = LlamaConfig(
        vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4
    )
    with pytest.raises(HydrascopeError, match="LlamaModel"):
        hs.load_model(LlamaModel(config))
    with pytest.raises(HydrascopeError, match="a LlamaForSequenceClassification predicts no tokens"):
        hs.load_model(LlamaForSequenceClassification(config))
    with pytest.raises(HydrascopeError, match="a str is no tokenizer: give a transformers tokenizer"):
        hs.load_model(loaded().hf, "gpt2")
    with pytest.raises(HydrascopeError, match="a NoneType is no transformers model"):
        hs.load_model(None)  # type: ignore[arg-type]
    with pytest.raises(HydrascopeError, match=r"unknown dtype torch\.float32: choose"):
        hs.load_model("built-in", dtype=torch.float32)  # type: ignore[arg-type]
