"""A run fails where its numbers can't be right, and takes less at a time where memory runs out."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from plain import TEXTS, loaded
from stored import run_to_disk

from hydrascope.ablations.ablation import Resample, Zero
from hydrascope.engines import Engine, Readings, Request, reference, wavefront
from hydrascope.engines.directions import Direction
from hydrascope.engines.readouts import Logit
from hydrascope.models.language_model import LanguageModel
from hydrascope.runs import plan
from hydrascope.runs.sweep import sweep
from hydrascope.storage.reader import open_results
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)

#: A direction whose readings are a million times those of a logit, and one inside the network.
READOUTS = [Direction(1e7 * np.linspace(-1, 1, 32), name="large"), Logit(), Direction(np.ones(32), 2, "inner")]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return loaded()


def engine(monkeypatch: pytest.MonkeyPatch, measure: Callable[[LanguageModel, Request], Readings]) -> None:
    monkeypatch.setattr(plan, "choose_engine", lambda model, name: Engine("wavefront", measure, "for the test"))


def close(one: xr.Dataset, other: xr.Dataset) -> None:
    for name in ("total", "direct", "unembed_ablated", "unembed_ablated_own", "unembed", "logit", "patch_prompt"):
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=1e-10, err_msg=name)


ERRORS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", ERRORS)
def test_the_batch_is_halved_when_memory_runs_out(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    expected = sweep(model, TEXTS, Zero())
    sizes: list[int] = []

    def measure(model: LanguageModel, request: Request) -> Readings:
        sizes.append(len(request.tokens))
        if sizes[-1] > 2:
            raise error
        return wavefront.measure(model, request)

    engine(monkeypatch, measure)
    results = sweep(model, TEXTS, Zero(), batch_size=8)
    assert sizes == [8, 4, 2, 2, 2, 2]
    assert (results.attrs["batch_size"], results.attrs["chunk_size"], results.attrs["overrides_at_once"]) == (2, 32, 6)
    close(results, expected)


def test_then_the_runs_of_one_prompt_are_halved(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """At most three rows at a time fit; what fitted is kept to, and stored for those who go on."""
    expected = sweep(model, TEXTS, Resample(3))
    tried: list[tuple[int, int]] = []

    def measure(model: LanguageModel, request: Request) -> Readings:
        tried.append((len(request.tokens), len(request.overrides)))
        if len(request.tokens) * len(request.overrides) * request.patches > 3:
            raise MemoryError
        return wavefront.measure(model, request)

    engine(monkeypatch, measure)
    run_to_disk(model, TEXTS, Resample(3), out=tmp_path / "r.zarr", batch_size=4)
    assert tried == [(4, 6), (2, 6), (1, 6), (1, 3), *[(1, 1)] * 6 * len(TEXTS)]
    results = open_results(tmp_path / "r.zarr")
    assert (results.attrs["batch_size"], results.attrs["chunk_size"], results.attrs["overrides_at_once"]) == (1, 16, 1)
    close(results, expected)


def test_a_metric_that_runs_out_of_memory_is_taken_for_that(model: LanguageModel) -> None:
    def hungry(logits: torch.Tensor, clean: torch.Tensor, target: int) -> torch.Tensor:
        if len(logits) > 4:
            raise ERRORS[1]
        return logits[:, target]

    results = sweep(model, TEXTS, Resample(3), metrics=[hungry])
    assert results.attrs["overrides_at_once"] == 1
    assert results["metric"].values == ["hungry"]


def test_what_does_not_fit_at_all_is_said(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(model: LanguageModel, request: Request) -> Readings:
        raise MemoryError

    engine(monkeypatch, measure)
    with pytest.raises(HydrascopeError, match="memory runs out with one override of one prompt"):
        sweep(model, TEXTS, Zero())


def test_other_errors_are_not_taken_for_memory(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(model: LanguageModel, request: Request) -> Readings:
        raise RuntimeError("shapes don't fit")

    engine(monkeypatch, measure)
    with pytest.raises(RuntimeError, match="shapes don't fit"):
        sweep(model, TEXTS, Zero())


@pytest.mark.parametrize("name", ["logit_ablated", "unembed_ablated", "scale", "unembed", "embed"])
@pytest.mark.parametrize("wrong", [1e-2, float("nan")])
def test_a_run_whose_balance_is_off_fails(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, wrong: float
) -> None:
    """One wrong number in the second block, in one of several runs made one by one; the first block stays."""

    def measure(model: LanguageModel, request: Request) -> Readings:
        readings = wavefront.measure(model, request)
        if model.encode(TEXTS[5]) in list(request.tokens) and str(request.overrides[0]) == "attn.1":
            number = list(request.tokens).index(model.encode(TEXTS[5]))
            values = getattr(readings, name)
            # The readout in the middle, where there are readouts: another is larger by far.
            (values[number] if name == "scale" else values[1, number]).view(-1)[-1] += wrong
        return readings

    engine(monkeypatch, measure)
    monkeypatch.setattr("hydrascope.models.memory.MemoryBudget.batch", lambda budget: plan.Batch(1, 1))
    readout = "large" if name == "scale" else "logit"
    with pytest.raises(
        HydrascopeError,
        match=rf'total effects of prompt 6 \("no"\) on {readout} and .* do not balance: off by '
        r'|^\w+ of prompt 6 \("no"\) is not finite',
    ) as caught:
        run_to_disk(model, TEXTS, Zero(), out=tmp_path / "r.zarr", ablate="attn", readouts=READOUTS, keep="means")
    assert "\n" not in str(caught.value)
    assert open_results(tmp_path / "r.zarr").sizes["prompt"] == 4


def test_a_large_readout_does_not_hide_a_small_one(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each readout balances at its own size."""

    def measure(model: LanguageModel, request: Request) -> Readings:
        readings = wavefront.measure(model, request)
        readings.logit_ablated[1] += 1e-2
        return readings

    assert sweep(model, TEXTS, Zero(), readouts=READOUTS)["imbalance"].max() < 1e-1
    engine(monkeypatch, measure)
    with pytest.raises(HydrascopeError, match=r"on logit and their parts do not balance: off by 0\.01"):
        sweep(model, TEXTS, Zero(), readouts=READOUTS)


@pytest.mark.parametrize("error", [1e-2, float("nan")])
def test_an_engine_that_misses_the_clean_run_fails(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, error: float
) -> None:
    engine(
        monkeypatch, lambda model, request: replace(reference.measure(model, request), clean_error=torch.tensor(error))
    )
    with pytest.raises(HydrascopeError, match="the wavefront engine does not reproduce the clean run"):
        sweep(model, TEXTS, Zero())


def test_a_model_that_overflows_is_said_to(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(model: LanguageModel, request: Request) -> Any:
        readings = wavefront.measure(model, request)
        return replace(readings, logit_direct=readings.logit_direct / 0)

    engine(monkeypatch, measure)
    with pytest.raises(HydrascopeError, match=r'direct of prompt \d \(".*"\) is not finite: the model overflows'):
        sweep(model, TEXTS, Zero())
