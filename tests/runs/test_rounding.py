"""How far rounding puts a run off, as it is estimated and as it is: against the whole run in float64."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from plain import TEXTS, exactly_normed, loaded, plain_run
from tiny import CONFIGS
from transformers import AutoConfig, AutoModelForCausalLM

import hydrascope as hs
from hydrascope.measures import Bootstrap
from hydrascope.models import float64
from hydrascope.models.float64 import Float64Mode, float64_copy
from hydrascope.models.language_model import LanguageModel
from hydrascope.reports.kinds import summarise
from hydrascope.runs import start

torch.set_num_threads(1)

EFFECTS = ("total", "direct", "indirect")


def model(case: str, *, large: float = 1.0, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """A model one of whose features is `large` times what it was in every embedding."""
    made = loaded(case, torch.float32, 1)
    with torch.no_grad():
        made.hf.get_input_embeddings().weight[:, 3] *= large
    made.hf.to(dtype)
    return made


def off(narrow: xr.Dataset, wide: xr.Dataset, effect: str) -> np.ndarray:
    return np.abs(narrow[effect].values.astype(np.float64) - wide[effect].values)


@pytest.mark.parametrize("case", ["gpt2", pytest.param("llama", marks=pytest.mark.slow)])
@pytest.mark.parametrize("large", [1.0, 1e4])
@pytest.mark.parametrize("ablation", [pytest.param(hs.Zero(), marks=pytest.mark.slow), hs.Resample(3)])
def test_the_estimate_is_of_the_size_of_the_error(case: str, large: float, ablation: Any) -> None:
    narrow = hs.sweep(model(case, large=large), TEXTS, ablation)
    with Float64Mode():
        wide = hs.sweep(model(case, large=large, dtype=torch.float64), TEXTS, ablation)
    found = json.loads(narrow.attrs["precision"])
    assert {key: found[key] for key in ("against", "prompts", "ablations", "patches")} == {
        "against": "a copy in float64",
        "prompts": 1,
        "ablations": 6,
        "patches": ablation.patches,
    }
    for effect in EFFECTS:
        (mean, worst), truth = found["readouts"]["logit"][effect], off(narrow, wide, effect)
        # Of one prompt, where the truth is of eight.
        assert 0.2 < mean / truth.mean() < 5
        assert mean <= worst < 3 * truth.max()


@pytest.mark.parametrize("case", ["gpt2", pytest.param("llama", marks=pytest.mark.slow)])
def test_the_estimate_for_whole_answers(case: str) -> None:
    prompts = [hs.Prompt(text + ".", "and so"[: 1 + number % 4]) for number, text in enumerate(TEXTS)]
    options: dict[str, Any] = {"metrics": ["kl", "answer_log_prob"]}
    narrow = hs.sweep(model(case), prompts, hs.Resample(3), **options)
    with Float64Mode():
        wide = hs.sweep(model(case, dtype=torch.float64), prompts, hs.Resample(3), **options)
    found = json.loads(narrow.attrs["precision"])["metrics"]
    assert list(found) == ["answer_log_prob"]
    mean, worst = found["answer_log_prob"]
    truth = off(narrow.sel(metric="answer_log_prob"), wide.sel(metric="answer_log_prob"), "metric_ablated")
    assert 0.1 < mean / truth.mean() < 10
    assert mean <= worst < 3 * truth.max()
    precision = hs.sweep(model(case), prompts, hs.Resample(3), metrics="kl").attrs["precision"]
    assert "metrics" not in json.loads(precision)


def test_the_model_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    given = model("llama")
    before = copy.deepcopy(given.hf.state_dict())
    with_estimate = hs.sweep(given, TEXTS, hs.Zero())
    for name, value in given.hf.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])
    monkeypatch.setattr(start, "precision", lambda plan, clean: {})
    without = hs.sweep(given, TEXTS, hs.Zero())
    with_estimate.attrs.pop("precision")
    for name in ("batch_difference", "batch_tolerance"):
        del with_estimate.attrs[name], without.attrs[name]
    xr.testing.assert_identical(with_estimate, without)


def test_throughout_is_float64_in_norms_too() -> None:
    given = model("llama", dtype=torch.float64)
    tokens = given.encode(TEXTS[1])
    with Float64Mode():
        exact = plain_run(exactly_normed(copy.deepcopy(given)), tokens).logits
        torch.testing.assert_close(plain_run(given, tokens).logits, exact, rtol=0, atol=1e-12)
    assert not torch.allclose(plain_run(given, tokens).logits, exact, rtol=0, atol=1e-9)


def test_every_readout_has_its_own() -> None:
    readouts = [
        hs.Logit(),
        hs.Direction(1e5 * np.linspace(-1, 1, 32), name="large"),
        hs.Direction(np.ones(32), 2, "in"),
    ]
    results = hs.sweep(model("llama"), TEXTS, hs.Zero(), readouts=readouts)
    found = json.loads(results.attrs["precision"])["readouts"]
    assert list(found) == ["logit", "large", "in"]
    assert found["large"]["total"][0] > 1e3 * found["logit"]["total"][0]


def test_a_model_too_large_to_copy_is_compared_with_the_other_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float64, "COPY_BYTES", 1000)
    found = json.loads(hs.sweep(model("gpt2"), TEXTS, hs.Zero()).attrs["precision"])
    assert found["against"] == "the reference engine"
    assert 0 < found["readouts"]["logit"]["total"][0] < 1e-5
    assert "precision" not in hs.sweep(model("bloom"), TEXTS, hs.Zero()).attrs


def test_a_wider_dtype_is_compared_with_itself_throughout() -> None:
    found = json.loads(hs.sweep(model("llama", dtype=torch.float64), TEXTS, hs.Zero()).attrs["precision"])
    assert found["against"] == "float64 throughout"
    assert 0 < found["readouts"]["logit"]["total"][0] < 1e-5
    assert float64_copy(model("llama", dtype=torch.float64)) is None


def test_an_estimate_is_stored_and_kept(tmp_path: Path) -> None:
    given = model("llama")
    hs.sweep(given, TEXTS, hs.Zero(), out=tmp_path / "r.zarr", batch_size=1)
    stored = hs.open_results(tmp_path / "r.zarr").attrs["precision"]
    assert stored == hs.sweep(given, TEXTS, hs.Zero(), batch_size=1).attrs["precision"]


def test_a_summary_says_where_rounding_is_much() -> None:
    texts = [f"{one} {two}" for one in "abcdefgh" for two in "xyz"]
    results = hs.sweep(loaded("gpt2", torch.float32), texts, hs.Zero(), ablate="attn.1")

    def warned(size: float) -> bool:
        errors = {effect: [size, 2 * size] for effect in EFFECTS}
        precision = {**json.loads(results.attrs["precision"]), "readouts": {"logit": errors}}
        summary = summarise(results.assign_attrs(precision=precision), bootstrap=Bootstrap(20))
        return any(line.startswith("rounding in float32 puts") for line in summary.warnings)

    assert not warned(1e-7)
    assert warned(10.0)


@pytest.mark.parametrize("case", ["gpt2", "llama", "gemma2", "gpt_neox"])
def test_the_copy_is_the_model_in_float64_and_leaves_it_alone(case: str) -> None:
    given = model(case)
    before = {name: each.clone() for name, each in given.hf.state_dict().items()}
    expected = copy.deepcopy(given.hf).double()
    found = float64_copy(given)
    assert found is not None
    for of in ("named_parameters", "named_buffers"):
        wide, plain = (dict(getattr(hf, of)()) for hf in (found.hf, expected))
        assert wide.keys() == plain.keys()
        for name, each in plain.items():
            assert wide[name].dtype == each.dtype, name
            assert torch.equal(wide[name], each), name
        assert len(set(map(id, dict(found.hf.named_parameters()).values()))) == len(list(expected.parameters()))
    assert all(torch.equal(each, before[name]) for name, each in given.hf.state_dict().items())


def test_a_gpt2_that_upcasts_its_scores_is_measured_again_without() -> None:
    """In float64 transformers refuses it under eager attention; the numbers are the same."""
    settings = {**CONFIGS["gpt2"][1], "reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True}
    config = AutoConfig.for_model("gpt2", **settings)
    given = hs.load_model(AutoModelForCausalLM.from_config(config, attn_implementation="eager"))
    results = hs.sweep(given, [[5, 6, 7, 8], [9, 10, 11]], hs.Zero(), engine="reference")
    errors = json.loads(results.attrs["precision"])["readouts"]["logit"]
    assert 0 < errors["total"][0] < 1e-5
    assert all(block.attn.reorder_and_upcast_attn for block in given.blocks)


def test_the_rounding_of_products_of_differences_is_estimated_too() -> None:
    narrow = hs.sweep(model("llama"), TEXTS, hs.Resample(3), products="bfloat16-differences")
    with Float64Mode():
        wide = hs.sweep(model("llama", dtype=torch.float64), TEXTS, hs.Resample(3))
    (mean, worst), truth = (
        json.loads(narrow.attrs["precision"])["readouts"]["logit"]["total"],
        off(narrow, wide, "total"),
    )
    assert 0.2 < mean / truth.mean() < 5
    assert 1e-4 < mean <= worst < 3 * truth.max()
