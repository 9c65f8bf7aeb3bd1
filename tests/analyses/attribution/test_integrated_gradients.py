"""Integrated gradients become the total effect as steps grow, as completeness says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rest_slow import rest_slow
from tiny import CONFIGS, shared
from toward import PROMPTS, Toward, slope, total

import hydrascope as hs
from hydrascope.analyses.attribution import integrated_gradients
from hydrascope.utils.errors import HydrascopeError

#: Which experts compute is chosen, and a choice has no gradient.
CHOOSING = {"mixtral", "qwen3_moe", "deepseek_v3", "gpt_oss"}


@pytest.mark.parametrize("case", rest_slow(sorted(set(CONFIGS) - CHOOSING)))
def test_completeness(case):
    options = {"ablate": "layers,head.1.2", "at": [-1, -2]}
    ablation = Toward(hs.Resample(1), 0.5)
    exact = total(shared(case), ablation, PROMPTS[:2], **options)
    found = integrated_gradients(shared(case), PROMPTS[:2], ablation, steps=32, **options)["estimate"].values
    # The kinks of ReLU are integrated less well.
    tolerance = 2e-2 if case in ("opt", "opt-plain") else 2e-3
    np.testing.assert_allclose(found, exact, atol=tolerance * abs(exact).max(), rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("at", ["last", "all"])
@settings(max_examples=2, deadline=None)
@given(seed=st.integers(0, 99))
def test_the_error_falls_with_the_square_of_the_steps(at, seed):
    ablation = Toward(hs.Zero() if at == "all" else hs.Resample(2, seed=seed), 0.3)
    options = {"ablate": "mlp,heads.1,neuron.0.2", "at": at, "readouts": [hs.Logit(), hs.Logit(7)]}
    prompts = PROMPTS[1:]
    exact = total(shared("gpt2"), ablation, prompts, **options)
    coarse, fine = (
        abs(integrated_gradients(shared("gpt2"), prompts, ablation, steps=n, **options)["estimate"].values - exact)
        for n in (8, 32)
    )
    assert (fine.max((1, 2)) < coarse.max((1, 2)) / 10).all()
    assert fine.max() < 1e-4


def test_one_step_is_the_slope_in_the_middle():
    options = {"ablate": "attn.1,mlp.0", "at": "last"}
    found = integrated_gradients(shared("gpt2"), PROMPTS, hs.Zero(), steps=1, **options)["estimate"].values
    step = 1e-4
    there, back = (total(shared("gpt2"), Toward(hs.Zero(), 0.5 + way * step), **options) for way in (1, -1))
    np.testing.assert_allclose(found, (there - back) / (2 * step), atol=1e-6)
    assert abs(found - slope(shared("gpt2"), hs.Zero(), step, **options)).max() > 0.01


def test_no_steps():
    with pytest.raises(HydrascopeError, match="invalid steps 0"):
        integrated_gradients(shared("gpt2"), PROMPTS, steps=0)
