"""A batch fits the memory there is, by an estimate that grows with all that takes memory."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny

from hydrascope import memory
from hydrascope.errors import HydrascopeError
from hydrascope.memory import automatic_batch_size, is_out_of_memory, prompt_bytes, within_memory

MODEL = tiny("llama", torch.float32)


@settings(deadline=None)
@given(st.integers(1, 2000), st.integers(1, 40), st.integers(10_000, 10_000_000))
def test_a_batch_fits_the_budget(length: int, patches: int, budget: int) -> None:
    tokens = [[1] * length, [1]]
    bank = 2 * len(MODEL.components) * MODEL.width * 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "CPU_BYTES", budget)
        size = automatic_batch_size(MODEL, tokens, patches)
    needed = prompt_bytes(MODEL, length, patches)
    assert 1 <= size <= memory.LARGEST_BATCH["cpu"]
    assert size == 1 or size * needed <= budget - bank or size * needed <= budget / 8
    assert size == memory.LARGEST_BATCH["cpu"] or (size + 1) * needed > budget - bank


def test_on_a_gpu_the_budget_is_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = prompt_bytes(MODEL, 4, 15)
    monkeypatch.setattr(type(MODEL), "device", torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10 * needed, 100 * needed))
    assert automatic_batch_size(MODEL, [[1] * 4], 15) == 8


def test_the_estimate_grows_with_all_that_takes_memory() -> None:
    base = prompt_bytes(MODEL, 10, 15)
    assert prompt_bytes(MODEL, 20, 15) > base
    assert prompt_bytes(MODEL, 10, 30) > 1.9 * base
    assert prompt_bytes(tiny("llama", torch.float64), 10, 15) > 1.9 * base
    # What the rows alone hold: the residual stream and the widest inner layer.
    rows = len(MODEL.components) * 15 + 1
    assert base > rows * 4 * (MODEL.width + MODEL.config.intermediate_size)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 64), st.integers(1, 64))
def test_halved_until_it_fits(size: int, fits: int) -> None:
    tried: list[int] = []

    def measure(count: int) -> int:
        tried.append(count)
        if count > fits:
            raise MemoryError
        return count

    result, found = within_memory(measure, size)
    assert result == found == tried[-1]
    assert found <= min(fits, size)
    assert size <= fits or found > fits // 2 - 1
    assert all(after == before // 2 for before, after in pairwise(tried))


def test_what_counts_as_running_out_of_memory() -> None:
    def none_left(size: int) -> None:
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.")

    with pytest.raises(HydrascopeError, match="memory runs out with one prompt at a time"):
        within_memory(none_left, 4)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60)
    assert is_out_of_memory(refused.value)
