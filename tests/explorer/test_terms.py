"""The explorer takes terms of a model's dictionaries in its overrides."""

import numpy as np
import pytest
from dictionaries import with_dictionary
from tiny import tiny_tokenizer

import hydrascope as hs
from hydrascope.explorer.job_monitor import JobMonitor
from hydrascope.explorer.question import Question
from hydrascope.explorer.session import Session
from hydrascope.utils.errors import HydrascopeError

TEXTS = ["the cat", "no way", "hello you", "a b c"]


def test_terms_are_ablated_and_frozen_as_in_a_sweep() -> None:
    model = with_dictionary("llama", "mlp.1")
    model.tokenizer = tiny_tokenizer()
    session = Session(model, hs.prompts.PromptSet.of(TEXTS, "few"))
    for run in ("feature.mlp.1.0", "error.mlp.1", "attn.0|feature.mlp.1"):
        asked = Question("the cat", run=run, ablation="zero")
        found = session.measured(asked, [hs.Override.parse(run)], JobMonitor())
        expected = hs.sweep(model, TEXTS, hs.Zero(), ablate=run).isel(prompt=[0])
        np.testing.assert_allclose(found["total"], expected["total"], atol=1e-5)
        assert session.ablate(asked, JobMonitor())["runs"]
    with pytest.raises(HydrascopeError, match=r"are 12 runs: write one"):
        session.ablate(Question("the cat", run="features.mlp.1", ablation="zero"), JobMonitor())
