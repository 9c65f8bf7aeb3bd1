"""Prompts are run clean once where there is room to keep what comes of it; kept or not, the numbers are the same."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import tiny

from hydrascope import blocks
from hydrascope.ablation import Resample
from hydrascope.model import LanguageModel
from hydrascope.runs import sweep

torch.set_num_threads(1)

PROMPTS = st.lists(st.lists(st.integers(1, 20), min_size=2, max_size=6).map(tuple), min_size=3, max_size=9, unique=True)


def swept(model: LanguageModel, prompts: Any, size: int, at: str, room: float) -> tuple[dict[str, np.ndarray], int]:
    """The measured numbers where there is `room` for so many bytes, and how often a clean run was made again."""
    again = 0

    def counted(*arguments: Any) -> Any:
        nonlocal again
        again += 1
        return shared(*arguments)

    shared = blocks.shared
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "spare_bytes", lambda *_: room)
        patch.setattr(blocks, "shared", counted)
        found = sweep(
            model, [list(each) for each in prompts], Resample(2), ablate="layers,heads.0", at=at, batch_size=size
        )
    return {name: each.values for name, each in found.data_vars.items()}, again


@settings(max_examples=8, deadline=None)
@given(PROMPTS, st.integers(1, 3), st.sampled_from(["last", "-2", "-2,-1"]), st.sampled_from(["gpt2", "llama"]))
def test_what_is_kept_of_clean_runs_changes_no_bit(prompts: Any, size: int, at: str, architecture: str) -> None:
    model = tiny(architecture, torch.float32)
    kept, none = swept(model, prompts, size, at, np.inf)
    made, every = swept(model, prompts, size, at, 0)
    some, a_few = swept(model, prompts, size, at, 3000)
    batches = sum(-(-len(prompts[start : start + 4 * size]) // size) for start in range(0, len(prompts), 4 * size))
    assert (none, every) == (0, batches)
    assert 0 <= a_few <= batches
    for name, values in kept.items():
        np.testing.assert_array_equal(made[name], values, err_msg=name)
        np.testing.assert_array_equal(some[name], values, err_msg=name)
