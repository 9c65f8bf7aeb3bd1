"""Prompts are run clean once where there is room to keep what comes of it; kept or not, the numbers are the same."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import run_to_disk
from tiny import tiny

from hydrascope.ablations.ablation import Ablation, Mean, Resample
from hydrascope.engines.clean.prefix import SharedPrefix
from hydrascope.engines.clean.prefix_store import PrefixStore
from hydrascope.models import memory
from hydrascope.models.language_model import LanguageModel
from hydrascope.runs import batches as blocks
from hydrascope.runs.batches import choose_prefix_store
from hydrascope.runs.plan import make_plan
from hydrascope.runs.sweep import sweep
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)

PROMPTS = st.lists(st.lists(st.integers(1, 20), min_size=2, max_size=6).map(tuple), min_size=3, max_size=9, unique=True)


def swept(
    model: LanguageModel, prompts: Any, size: int, at: str, store: PrefixStore
) -> tuple[dict[str, np.ndarray], int]:
    """The measured numbers where clean runs are kept so, and how often one was made again."""
    again = 0

    def counted(*arguments: Any) -> Any:
        nonlocal again
        again += 1
        return shared(*arguments)

    shared = blocks.compute_prefix
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "choose_prefix_store", lambda *_: store)
        patch.setattr(blocks, "compute_prefix", counted)
        found = sweep(
            model, [list(each) for each in prompts], Resample(2), ablate="layers,heads.0", at=at, batch_size=size
        )
    return {name: each.values for name, each in found.data_vars.items()}, again


@settings(max_examples=3, deadline=None)
@given(PROMPTS, st.integers(1, 3), st.sampled_from(["last", "-2", "-2,-1"]), st.sampled_from(["gpt2", "llama"]))
def test_what_is_kept_of_clean_runs_changes_no_bit(prompts: Any, size: int, at: str, architecture: str) -> None:
    model = tiny(architecture, torch.float32)
    kept, none = swept(model, prompts, size, at, PrefixStore(np.inf))
    filed, none_filed = swept(model, prompts, size, at, HoweverSlow(folder=Path(tempfile.gettempdir())))
    made, every = swept(model, prompts, size, at, PrefixStore())
    some, a_few = swept(model, prompts, size, at, PrefixStore(3000))
    batches = sum(-(-len(prompts[start : start + 4 * size]) // size) for start in range(0, len(prompts), 4 * size))
    assert (none, none_filed, every) == (0, 0, batches)
    assert 0 <= a_few <= batches
    for name, values in kept.items():
        for other in (filed, made, some):
            np.testing.assert_array_equal(other[name], values, err_msg=name)


def test_what_prompts_share_waits_in_memory_as_far_as_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prompts = tiny("gpt2", torch.float32), [[1, 2, 3], [4, 5], [6, 7]]
    plan = make_plan(model, prompts, Resample(1))
    one = blocks.compute_prefix(model, prompts, torch.tensor([[2], [1], [1]]), model.sublayers, plan.routines)
    store = choose_prefix_store(plan, plan.batch(3), tmp_path)
    store.put([0, 1, 2], one, np.inf)
    assert store.take([0, 1, 2]) is one
    monkeypatch.setattr(memory, "CPU_SPARE_BYTES", 0)
    store = choose_prefix_store(plan, plan.batch(3), tmp_path)
    store.put([0, 1, 2], one, np.inf)
    filed = store.take([0, 1, 2])
    assert filed is not one
    assert filed is not None
    assert all(map(torch.equal, one.tensors, filed.tensors))


class HoweverSlow(PrefixStore):
    """As if computing took for ever, so that writing is quicker."""

    def put(self, prompts: Sequence[int], prefix: SharedPrefix, seconds: float) -> None:
        super().put(prompts, prefix, np.inf)


@settings(max_examples=2, deadline=None)
@given(PROMPTS, st.sampled_from(["last", "-2,-1"]), st.sampled_from([Resample(2), Mean()]))
def test_clean_values_on_disk_are_those_in_memory(prompts: Any, at: str, ablation: Ablation) -> None:
    model, texts = tiny("gpt2", torch.float32), [list(each) for each in prompts]

    def measured(on_disk: bool) -> xr.Dataset:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(memory.MemoryBudget, "activations_on_disk", on_disk)
            return sweep(model, texts, ablation, ablate="layers,neurons.1", at=at, batch_size=3)

    xr.testing.assert_identical(measured(True).drop_attrs(), measured(False).drop_attrs())


def test_clean_values_on_disk_lie_beside_the_result_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = tiny("gpt2", torch.float32), []

    def from_file(name: str, **how: Any) -> torch.Tensor:
        seen.append(Path(name))
        assert Path(name).stat().st_size == how["size"] * how["dtype"].itemsize
        return mapped(name, **how)

    mapped = torch.from_file
    monkeypatch.setattr(torch, "from_file", from_file)
    monkeypatch.setattr(memory.MemoryBudget, "activations_on_disk", True)
    run_to_disk(model, [[1, 2, 3], [4, 5], [6, 7]], Resample(1), out=tmp_path / "new" / "r.zarr")
    assert {each.parent for each in seen} == {tmp_path / "new"}
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["r.zarr"]


def test_a_disk_without_room_for_clean_values_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    monkeypatch.setattr(memory.MemoryBudget, "activations_on_disk", True)
    with pytest.raises(HydrascopeError, match=r"cannot keep clean values in .* \(No space left on device\); make room"):
        run_to_disk(tiny("gpt2", torch.float32), [[1, 2, 3], [4, 5], [6, 7]], Resample(1), out=tmp_path / "r.zarr")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fails", ["clean runs", "measuring"])
def test_where_memory_runs_out_nothing_is_kept(fails: str) -> None:
    """Of batches that will not be made; the numbers are those of the smaller ones."""
    model, prompts = tiny("gpt2", torch.float32), [[number + 1, 5, 7] for number in range(8)]
    left, failing = [], True

    def once(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            nonlocal failing
            if failing:
                failing = False
                raise MemoryError
            return function(*arguments)

        return call

    def looked(plan: Any, clean: Any, *rest: Any) -> Any:
        left.append(len(clean.prefixes.prompts))
        return measured(plan, clean, *rest)

    measured = blocks._measure
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "choose_prefix_store", lambda *_: PrefixStore(np.inf))
        patch.setattr(blocks, "_measure", looked if fails == "clean runs" else once(looked))
        if fails == "clean runs":
            patch.setattr(blocks, "collect_clean_activations", once(blocks.collect_clean_activations))
        found = sweep(model, prompts, Resample(1), batch_size=4)
    assert not failing
    assert set(left) == {0}
    expected = sweep(model, prompts, Resample(1), batch_size=2)
    np.testing.assert_allclose(found["total"], expected["total"], atol=1e-5)
