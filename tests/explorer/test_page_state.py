"""Take patches and settings of the live page from stored results of the same model."""

from pathlib import Path

import pytest
from exploring import POOL
from plain import loaded

import hydrascope as hs
from hydrascope.explorer.page_state import live_config, pool_of, require_same_model
from hydrascope.utils.errors import HydrascopeError


def test_patches_come_from_what_was_measured(session):
    results = hs.sweep(session.model, POOL, hs.Zero(), ablate="attn.0")
    assert [prompt.text for prompt in pool_of("gpt2", None, None, results).prompts] == list(POOL)
    assert len(pool_of("gpt2", None, 3, results).prompts) == 3
    subjects = [hs.Prompt("abc", subject="bc"), hs.Prompt("the cat", subject="the")]
    results = hs.sweep(session.model, subjects, hs.Zero(), ablate="attn.0", at="subject-last")
    assert list(pool_of("gpt2", None, None, results).prompts) == subjects
    assert live_config(session, Path("."), results)["defaults"]["at"] == "subject-last"
    without = results.drop_vars("subject")
    assert [prompt.subject for prompt in pool_of("gpt2", None, None, without).prompts] == [None, None]
    assert pool_of("phantom", None, None, None).name == "phantom"
    assert len(pool_of("gpt2", None, None, None).prompts) == 64
    require_same_model(session.model, results, "r.zarr")
    with pytest.raises(HydrascopeError, match=r"r.zarr is of gpt2 .*: give the model that was measured"):
        require_same_model(loaded("gpt2", seed=1), results, "r.zarr")
