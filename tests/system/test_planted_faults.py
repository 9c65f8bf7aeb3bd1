"""Faults of the kinds that make wrong numbers, planted one at a time: production finds each, before or after a run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ropes import LIMIT, roped
from stored import run_to_disk
from tiny import CONFIGS, tiny, tiny_tokenizer
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.masking_utils import causal_mask_function, sdpa_mask

import hydrascope as hs
from hydrascope.engines import attention
from hydrascope.engines.readouts import final_scale
from hydrascope.engines.wavefront import recorder, row_streams
from hydrascope.loading import self_check
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.projection import Projection
from hydrascope.reports.kinds import summarise
from hydrascope.runs import start
from hydrascope.runs.batch_check import BatchCheck
from hydrascope.utils.errors import HydrascopeWarning

torch.set_num_threads(1)

SHORT, LONG = [5, 9, 7, 11], [3 + place for place in range(2 * LIMIT)]
PROMPTS = [SHORT, LONG, [8, 6, 4], [12, 13, 14, 15, 16]]


@pytest.fixture
def longrope(monkeypatch: pytest.MonkeyPatch) -> LanguageModel:
    """A model whose table follows the longest prompt of a batch, and nothing that knows."""
    monkeypatch.setattr(LanguageModel, "batch_key", lambda self, length: ())
    model = roped("llama", "longrope")
    model.hf.to(torch.float32)
    model.tokenizer = tiny_tokenizer()
    self_check.require_valid(model)
    return model


def test_a_table_chosen_by_the_batch_ends_the_run_before_it_starts(longrope: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(
        hs.HydrascopeError, match=r"prompt \d .* depend on the prompts .*: measure each alone"
    ) as caught:
        hs.sweep(longrope, PROMPTS, hs.Resample(2), out=tmp_path / "r.zarr")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "r.zarr").exists()
    alone = hs.sweep(longrope, PROMPTS, hs.Resample(2), batch_size=1)
    assert alone.attrs["batch_difference"] <= alone.attrs["batch_tolerance"]


def test_what_shows_only_at_the_end_is_stored_and_said(
    longrope: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a GPU or another program changes something while hours are spent."""
    monkeypatch.setattr(start, "check_before", lambda *arguments: BatchCheck(0.0, 1e-6, "logit", "prompt 1"))
    said: list[str] = []
    out = run_to_disk(longrope, PROMPTS, hs.Zero(), out=tmp_path / "r.zarr", say=said.append)
    assert [line for line in said if "depend on the prompts that it is measured with" in line]
    results = hs.open_results(out)
    assert results.sizes["prompt"] == len(PROMPTS)
    assert results.attrs["batch_difference"] > 100 * results.attrs["batch_tolerance"]
    assert any("depend on" in warning for warning in summarise(results).warnings)
    with pytest.warns(HydrascopeWarning, match="depend on the prompts"):
        again = hs.sweep(longrope, PROMPTS, hs.Zero())
    np.testing.assert_allclose(again["total"], results["total"], atol=1e-6)


ANSWERED = [hs.Prompt(tokens=tuple(ids), answer=(5, 6, 7, 8)[: 2 + number % 3]) for number, ids in enumerate(PROMPTS)]


def test_an_answer_that_is_read_a_position_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readouts don't show it, and neither does the balance: the metric is compared itself."""
    model = tiny("llama", torch.float32)
    results = hs.sweep(model, ANSWERED, hs.Resample(2), metrics="answer_log_prob")
    assert results.attrs["batch_difference"] <= results.attrs["batch_tolerance"]
    at_end = row_streams.Points.at_end

    def too_early(model: LanguageModel, tokens: Any, counts: Any = None) -> row_streams.Points:
        points = at_end(model, tokens, counts)
        return replace(points, positions=points.positions - int(counts is not None))

    monkeypatch.setattr(row_streams.Points, "at_end", too_early)
    with pytest.raises(
        hs.HydrascopeError, match=r"prompt \d .*: answer_log_prob is off by .* from the same prompt alone"
    ):
        hs.sweep(model, ANSWERED, hs.Resample(2), metrics="answer_log_prob")
    monkeypatch.setattr(start, "check_before", lambda *arguments: BatchCheck(0.0, 1e-6, "logit", "prompt 1"))
    with pytest.warns(HydrascopeWarning, match="answer_log_prob is off by"):
        hs.sweep(model, ANSWERED, hs.Resample(2), metrics="answer_log_prob")


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        ("gpt2", torch.float32),
        ("gpt2", torch.bfloat16),
        *(
            pytest.param(case, dtype, marks=pytest.mark.slow)
            for case in ("gemma2", "bloom")
            for dtype in (torch.float32, torch.float64, torch.bfloat16)
        ),
    ],
)
def test_the_check_of_answers_passes_where_nothing_is_wrong(case: str, dtype: torch.dtype) -> None:
    """Alone, together and by plain passes; on disk the check at the end reads what was stored."""
    model = tiny(case, dtype)
    for at, ablation in (("last", hs.Resample(2)), ("all", hs.Zero())):
        results = hs.sweep(model, ANSWERED, ablation, metrics=["kl", "answer_log_prob"], at=at, ablate="layers,heads.1")
        assert results.attrs["batch_difference"] <= results.attrs["batch_tolerance"]
        assert list(json.loads(results.attrs["precision"])["metrics"]) == ["answer_log_prob"]


def test_in_float64_no_engine_s_rounding_is_taken_for_a_fault() -> None:
    """OPT's eager attention has its softmax in float32, and the fast engine's hasn't: no prompt depends on another."""
    config = AutoConfig.for_model("opt", **CONFIGS["opt"][1])
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").double()
    model.load_state_dict(tiny("opt").hf.state_dict())
    results = hs.sweep(model, PROMPTS, hs.Zero())
    assert 1e-12 < results.attrs["batch_difference"] <= results.attrs["batch_tolerance"] < 1e-3


def test_a_precision_that_is_good_by_chance_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = {"precision": {"readouts": {"logit": {effect: [0.0, 0.0] for effect in ("total", "direct", "indirect")}}}}
    monkeypatch.setattr(start, "precision", lambda plan, clean: exact)
    for seed in range(8):
        results = hs.sweep(tiny("olmo2", torch.float32, seed), PROMPTS, hs.Zero())
        assert 0 < results.attrs["batch_difference"] <= results.attrs["batch_tolerance"]


@pytest.mark.parametrize("rope", ["longrope", pytest.param("dynamic", marks=pytest.mark.slow)])
def test_the_check_of_answers_that_cross_the_limit_of_a_table(rope: str, tmp_path: Path) -> None:
    """A prompt's own activation is another once it is continued: that is no error."""
    model = roped("llama", rope)
    prompts = [hs.Prompt(tokens=tuple(range(3, 3 + length)), answer=(5, 6, 7)) for length in (LIMIT - 1, 4, LIMIT)]
    out = run_to_disk(model, prompts, hs.Resample(1), out=tmp_path / "r.zarr", metrics="answer_log_prob")
    assert hs.open_results(out).attrs["batch_difference"] <= hs.open_results(out).attrs["batch_tolerance"]


def test_a_window_that_is_wrong_where_no_short_prompt_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def everything(**arguments: Any) -> Tensor | None:
        return sdpa_mask(**{**arguments, "mask_function": causal_mask_function, "allow_is_causal_skip": False})

    model = tiny("mistral", torch.float32)
    model.hf.config.sliding_window = LIMIT
    hs.sweep(model, PROMPTS, hs.Zero())
    monkeypatch.setattr(attention, "sdpa_mask", lambda **arguments: everything(**arguments))
    self_check.require_valid(model)
    with pytest.raises(hs.HydrascopeError, match=r"prompt 2 .* from the same prompt alone"):
        hs.sweep(model, PROMPTS, hs.Zero())


def test_a_soft_cap_that_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("gemma2", torch.float64)
    self_check.require_valid(model)
    monkeypatch.setattr(attention, "capped", lambda scores, softcap: scores)
    with pytest.raises(hs.HydrascopeError, match="the wavefront agrees with plain forward passes"):
        self_check.require_valid(model)


def test_a_bias_that_is_given_to_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    written = Projection.written

    def with_bias(self: Projection, values: Tensor, unit: int) -> Tensor:
        return written(self, values, unit) + (self.module.bias if unit == 0 else 0)

    model = tiny("llama-bias")
    self_check.require_valid(model)
    monkeypatch.setattr(Projection, "written", with_bias)
    with pytest.raises(hs.HydrascopeError, match="heads and neurons sum to their sublayers"):
        self_check.require_valid(model)


def test_the_scale_of_another_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def rolled(model: LanguageModel, residual: Tensor) -> Tensor:
        scale = final_scale(model, residual)
        # Row 0 is the clean run.
        return torch.cat([scale[:, :1], scale[:, 1:].roll(1, 1)], 1) if residual.ndim == 3 else scale

    model = tiny("llama")
    self_check.require_valid(model)
    monkeypatch.setattr(recorder, "final_scale", rolled)
    with pytest.raises(hs.HydrascopeError, match="does not hold"):
        self_check.require_valid(model)
    with pytest.raises(hs.HydrascopeError, match=r"do not balance|from the same prompt alone"):
        hs.sweep(model, PROMPTS, hs.Zero())
    # It may balance, as both sides are read at the same wrong scale.
    monkeypatch.setattr(start, "check_before", lambda *arguments: BatchCheck(0.0, 1e-6, "logit", "prompt 1"))
    with pytest.warns(HydrascopeWarning, match="from the same prompt alone"):
        hs.sweep(model, PROMPTS, hs.Zero())
