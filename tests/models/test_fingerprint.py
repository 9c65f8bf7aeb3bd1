"""What decides the numbers of a run is in its attributes, so that no resumed run mixes two measurements."""

import copy
import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stored import run_to_disk
from tiny import tiny, tiny_tokenizer
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

import hydrascope as hs
from hydrascope.loading.load import read_model
from hydrascope.models import fingerprint
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import Prompt
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)

TEXTS = ["ab", "the cat", "no", "xyz."]


def model(change: Callable[[Any], object] = lambda hf: None, tokenizer: Any = None) -> LanguageModel:
    made = tiny("llama", torch.float32).hf.eval()
    change(made)
    return read_model(made, tokenizer or tiny_tokenizer())


def other_tokenizer() -> PreTrainedTokenizerFast:
    """As `tiny_tokenizer`, but that `a` and `b` have changed places."""
    words = tiny_tokenizer().backend_tokenizer.to_str()
    swapped = words.replace('"a":4', '"a":5').replace('"b":5', '"b":4')
    assert swapped != words
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(swapped), unk_token="<unk>")


@dataclasses.dataclass(frozen=True)
class Shift:
    """Add a vector to what sublayers write."""

    by: Any
    patches: int = 1

    def draw(self, clean: hs.ablations.CleanActivations, prompts: Any) -> hs.ablations.Patches:
        own = np.array(prompts)[:, None]
        return hs.ablations.Patches(own, lambda component: clean.activations_of(component, own, prompts) + self.by)


class Plain:
    """The same, without being a dataclass."""

    patches = 1

    def __init__(self, by: Any) -> None:
        self.by = by

    draw: Any = Shift.draw


def refused(started: dict[str, Any], resumed: dict[str, Any], tmp_path: Path, what: str) -> None:
    out = tmp_path / "r.zarr"
    run_to_disk(**{"prompts": TEXTS, "ablation": hs.Zero(), **started}, out=out)
    run_to_disk(**{"prompts": TEXTS, "ablation": hs.Zero(), **started}, out=out, resume=True)
    with pytest.raises(HydrascopeError, match=f"cannot resume .*{what} was"):
        run_to_disk(**{"prompts": TEXTS, "ablation": hs.Zero(), **started, **resumed}, out=out, resume=True)


def test_another_tokenizer(tmp_path: Path) -> None:
    refused({"model": model()}, {"model": model(tokenizer=other_tokenizer())}, tmp_path, "tokens_hash")


def test_another_tokenizer_of_answers_foils_and_twins(tmp_path: Path) -> None:
    prompts = [
        Prompt("no ", "a", foil="c"),
        Prompt("no ", "d", foil="b"),
        Prompt("no ", "d", foil="c", counterfactual="na "),
    ]
    for number, prompt in enumerate(prompts):
        given_ = {"model": model(), "prompts": [prompt], "readouts": hs.LogitDifference()}
        refused(given_, {"model": model(tokenizer=other_tokenizer())}, tmp_path / str(number), "tokens_hash")


@pytest.mark.parametrize("key", ["rms_norm_eps", "rope_parameters"])
def test_another_configuration(tmp_path: Path, key: str) -> None:
    """Changed after the model was loaded, so that its weights' hash is what it was."""
    values = {"rms_norm_eps": 1e-3, "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"}}
    changed = model()
    setattr(changed.hf.config, key, values[key])
    refused({"model": model()}, {"model": changed}, tmp_path, "config_hash")


def test_another_way_to_attend(tmp_path: Path) -> None:
    changed = model()
    changed.hf.set_attn_implementation("eager")
    refused({"model": model()}, {"model": changed}, tmp_path, "config_hash")


def test_names_of_a_configuration_decide_nothing() -> None:
    config = model().hf.config
    before = fingerprint.hash_config(config)
    config._name_or_path, config.architectures, config.transformers_version = "elsewhere", ["Other"], "0"
    assert fingerprint.hash_config(config) == before


def test_other_weights_of_a_model_that_says_nothing_of_them(tmp_path: Path) -> None:
    def bare(seed: int) -> LanguageModel:
        return LanguageModel(tiny("llama", torch.float32, seed).hf, tiny_tokenizer(), name="mine")

    refused({"model": bare(0)}, {"model": bare(1)}, tmp_path, "revision")


@pytest.mark.parametrize("kind", [Shift, Plain])
@pytest.mark.parametrize("other", [torch.full((32,), 1.0 + 1e-7), np.ones(32), None, [torch.ones(31), 1.0]])
def test_another_tensor_of_an_ablation_of_ones_own(tmp_path: Path, kind: Any, other: Any) -> None:
    given_ = {"model": model(), "ablation": kind(torch.ones(32))}
    refused(given_, {"ablation": kind(other)}, tmp_path, "ablation_hash")


def above(bound: float) -> Callable[..., torch.Tensor]:
    def count(logits: torch.Tensor, clean: torch.Tensor, target: int) -> torch.Tensor:
        return (logits > bound).sum(-1)

    return count


def counting_below() -> Callable[..., torch.Tensor]:
    def count(logits: torch.Tensor, clean: torch.Tensor, target: int) -> torch.Tensor:
        return (logits < 0.5).sum(-1)

    return count


def within(logits: torch.Tensor, clean: torch.Tensor, target: int, bound: float) -> torch.Tensor:
    return (logits.abs() < bound).sum(-1)


def named(metric: Any) -> Any:
    metric.__name__ = "within"
    return metric


def without_source(text: str) -> Callable[..., torch.Tensor]:
    names: dict[str, Any] = {}
    exec(f"def count(logits, clean, target): return {text}", names)
    return cast(Callable[..., torch.Tensor], names["count"])


@pytest.mark.parametrize(
    ("metric", "other"),
    [
        (above(0.5), above(0.25)),
        (above(0.5), counting_below()),
        (without_source("(logits > 0.5).sum(-1)"), without_source("(logits > 0.25).sum(-1)")),
        (named(partial(within, bound=0.5)), named(partial(within, bound=0.25))),
        (without_source("logits.amax(-1)"), without_source("logits.amin(-1)")),
    ],
)
def test_another_metric_of_the_same_name(tmp_path: Path, metric: Any, other: Any) -> None:
    refused({"model": model(), "metrics": [metric, "kl"]}, {"metrics": [other, "kl"]}, tmp_path, "metrics_hash")


def test_known_metrics_have_no_hash() -> None:
    assert "metrics_hash" not in hs.sweep(model(), TEXTS, hs.Zero(), metrics=["kl"]).attrs


def test_a_field_of_an_ablation_hides_no_attribute() -> None:
    @dataclasses.dataclass(frozen=True)
    class Named(Shift):
        model: str = "another"

    assert hs.sweep(model(), TEXTS, Named(torch.zeros(32))).attrs["model"] == "LlamaForCausalLM"


values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False),
        st.text(),
        st.lists(st.floats(width=32), max_size=3).map(torch.tensor),
        st.lists(st.integers(0, 9), max_size=3).map(np.array),
    ),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(), each, max_size=3),
)


@given(values)
def test_a_hash_is_of_the_value_alone(value: Any) -> None:
    assert fingerprint.hash_declared({"x": value}) == fingerprint.hash_declared({"x": copy.deepcopy(value)})
    assert fingerprint.hash_declared({"x": value}) != fingerprint.hash_declared({"x": [value]})


DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int8]


@given(st.sampled_from(DTYPES), st.lists(st.integers(0, 70), min_size=0, max_size=3), st.integers(0, 3), st.data())
def test_sums_of_a_weight_show_any_change(
    dtype: torch.dtype, shape: list[int], offset: int, data: st.DataObject
) -> None:
    count = int(np.prod(shape))
    random = torch.randint(-128, 128, (count + offset, dtype.itemsize), dtype=torch.int8)
    bits = random.view(dtype).flatten() if count + offset else torch.zeros(0, dtype=dtype)
    weight = bits[offset:].reshape(shape)
    found = fingerprint.weight_sums(weight)
    for same in (weight.clone(), torch.nn.Parameter(weight, requires_grad=False)):
        assert fingerprint.weight_sums(same) == found
    if weight.ndim > 1:
        assert found == fingerprint.weight_sums(weight.mT.contiguous().mT)  # laid out otherwise
    if count:
        place = data.draw(st.integers(0, count - 1))
        changed = weight.clone().flatten()
        changed.view(torch.uint8)[place * dtype.itemsize] ^= 1
        assert fingerprint.weight_sums(changed.view(shape)) != found


def test_sums_show_heads_that_change_places() -> None:
    weight = torch.randn(128, 768)
    heads = weight.unflatten(1, (12, 64))
    assert fingerprint.weight_sums(heads[:, [1, 0, *range(2, 12)]].flatten(1)) != fingerprint.weight_sums(weight)
    assert fingerprint.weight_sums(weight[[1, 0, *range(2, 128)]]) != fingerprint.weight_sums(weight)
