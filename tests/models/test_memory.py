"""A batch fits the memory there is, by an estimate that grows with all that takes memory."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny

from hydrascope.models import memory
from hydrascope.models.memory import (
    CPU_BYTES,
    LARGEST_BATCH,
    Batch,
    Load,
    MemoryBudget,
    is_out_of_memory,
    prefix_bytes,
    row_bytes,
    within_memory,
)
from hydrascope.utils.errors import HydrascopeError

MODEL = tiny("llama", torch.float32)
LOAD = Load(length=10, suffix=1, overrides=6, patches=15, reads=6)


def needed(load: Load, batch: Batch) -> int:
    """Return the estimated bytes of a batch: prefixes, clean rows, and a row for each override and patch."""
    return batch.prompts * (
        prefix_bytes(MODEL, load.length) + (batch.overrides * load.patches + 1) * row_bytes(MODEL, load)
    )


loads = st.builds(
    lambda length, suffix, runs, patches, reads: Load(length, min(suffix, length), runs, patches, reads),
    st.integers(1, 2000),
    st.integers(1, 50),
    st.integers(1, 500),
    st.integers(1, 40),
    st.integers(1, 100),
)


@settings(deadline=None)
@given(loads, st.integers(10_000, 1_000_000_000), st.integers(0, 2_000_000_000))
def test_a_batch_fits_the_budget_and_no_larger_one_does(load: Load, budget: int, activations: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "CPU_BYTES", budget)
        batch = MemoryBudget(MODEL, load, activations).batch()
    # Activations that take more than half of it are on disk.
    left, smallest = budget if activations > budget / 2 else budget - activations, Batch(1, 1)
    assert 1 <= batch.prompts <= memory.LARGEST_BATCH["cpu"]
    assert 1 <= batch.overrides <= load.overrides
    # All runs of several prompts, or some runs of one.
    assert batch.prompts == 1 or batch.overrides == load.overrides
    # A run split off shares its clean row with others: one row is the slack of the estimate.
    assert batch == smallest or needed(load, batch) <= left + row_bytes(MODEL, load)
    if batch.overrides < load.overrides:
        larger = replace(batch, overrides=batch.overrides + 1)
        assert needed(load, larger) > left or larger.overrides * load.patches > memory.ROWS
    elif batch.prompts < memory.LARGEST_BATCH["cpu"]:
        assert needed(load, replace(batch, prompts=batch.prompts + 1)) > left


def test_on_a_gpu_the_budget_is_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    free = 10 * needed(LOAD, Batch(1, LOAD.overrides))
    monkeypatch.setattr(type(MODEL), "device", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10 * free))
    assert MemoryBudget(MODEL, LOAD).batch() == Batch(8, LOAD.overrides)


def test_the_estimate_grows_with_all_that_takes_memory() -> None:
    base = row_bytes(MODEL, LOAD)
    assert row_bytes(MODEL, replace(LOAD, length=20)) > base
    assert row_bytes(MODEL, replace(LOAD, suffix=10)) > 5 * base
    assert row_bytes(MODEL, replace(LOAD, reads=1000)) > base + 900 * 4
    assert row_bytes(tiny("llama", torch.float64), LOAD) > 1.9 * base
    assert prefix_bytes(MODEL, 20) > 1.9 * prefix_bytes(MODEL, 10)
    assert prefix_bytes(tiny("llama", torch.float64), 10) > 1.9 * prefix_bytes(MODEL, 10)
    # What a row alone holds: the residual stream and the widest inner layer.
    assert base > 4 * (MODEL.width + MODEL.config.intermediate_size)


@settings(deadline=None, max_examples=12)
@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 4096))
def test_halved_until_it_fits(prompts: int, runs: int, fits: int) -> None:
    """First prompts, then the runs of one prompt."""
    tried: list[Batch] = []

    def measure(batch: Batch) -> Batch:
        tried.append(batch)
        if batch.prompts * batch.overrides > fits:
            raise MemoryError
        return batch

    with pytest.MonkeyPatch.context() as patch:
        # It takes its time where many tests' objects are about.
        patch.setattr("hydrascope.models.memory.gc.collect", lambda: 0)
        result, found = within_memory(measure, Batch(prompts, runs))
    assert result == found == tried[-1]
    assert found.prompts * found.overrides <= fits
    assert found.overrides == runs or found.prompts == 1
    for before, after in pairwise(tried):
        halved = (before.prompts // 2, runs) if before.prompts > 1 else (1, before.overrides // 2)
        assert (after.prompts, after.overrides) == halved


def test_what_counts_as_running_out_of_memory() -> None:
    def none_left(batch: Batch) -> None:
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.")

    with pytest.raises(HydrascopeError, match="memory runs out with one override of one prompt"):
        within_memory(none_left, Batch(4, 4))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60)
    assert is_out_of_memory(refused.value)


def test_rows_whose_gradients_are_wanted():
    """Fewer of longer prompts and beside more activations, and always one."""
    counts = [MemoryBudget(MODEL, LOAD).graph_rows(length) for length in (1, 100, 2_000, 1_000_000)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == LARGEST_BATCH["cpu"] > counts[2] > counts[3] == 1
    assert MemoryBudget(MODEL, LOAD, CPU_BYTES // 2).graph_rows(2_000) < counts[2]
