"""The placebo as a control: where nothing is special about the target, it differs from other tokens by chance alone."""

import numpy as np
import pytest
from tiny import VOCABULARY, tiny

import hydrascope as hs
from hydrascope.measures import Bootstrap, mean_interval


@pytest.mark.slow
@pytest.mark.parametrize("case", ["gpt2", "llama"])
def test_on_random_weights_a_target_drawn_at_random_is_a_placebo_itself(case: str) -> None:
    """Its intervals hold the placebo's mean about as often as they say: 95% of the time."""
    inside = looked = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        model = tiny(case, seed=seed)
        prompts = [
            hs.Prompt(tokens=tuple(map(int, rng.integers(3, VOCABULARY, 5))), answer=int(rng.integers(VOCABULARY)))
            for _ in range(40)
        ]
        results = hs.sweep(model, prompts, hs.Resample(2), target="answer", readouts=[hs.Logit(), hs.Placebo(1)])
        restored = (results["total"] - results["direct"]).mean("patch")
        differences = (restored.sel(readout="logit") - restored.sel(readout="placebo.0")).reset_coords(drop=True)
        bounds = mean_interval(differences[:, :-1], Bootstrap(resamples=500))
        holds = (bounds.sel(bound="low") <= 0) & (bounds.sel(bound="high") >= 0)
        inside, looked = inside + int(holds.sum()), looked + holds.size
    assert 0.88 <= inside / looked <= 1
