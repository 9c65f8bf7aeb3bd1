"""The built-in model on the sets that have twins and foils: each in one small sweep, at the subject and everywhere."""

import numpy as np
import pytest
import torch

import hydrascope as hs

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def model() -> hs.models.LanguageModel:
    return hs.load_model("built-in")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ioi", "greater-than", "world-facts"])
@pytest.mark.parametrize("at", ["subject-last", "all"])
def test_a_small_sweep(model: hs.models.LanguageModel, name: str, at: str) -> None:
    prompts = hs.load_prompts(name).limit(3)
    readouts = [hs.LogitDifference(), hs.Logit("answer"), hs.Logit("foil")]
    results = hs.sweep(
        model,
        prompts,
        hs.Counterfactual(),
        ablate="attn,heads.9",
        read="heads",
        at=at,
        readouts=readouts,
        metrics=["kl"],
    )
    assert results.sizes["prompt"] == 3
    assert results.attrs["worst_imbalance"] < 1e-3
    assert float(abs(results["total"]).max()) > 0.01
    difference = results["total"][1] - results["total"][2]
    np.testing.assert_allclose(results["total"][0], difference, rtol=0, atol=1e-4)
    # What isn't ablated at the last position has no direct effect there.
    assert bool((results["direct"] == 0).all()) == (at == "subject-last")
    assert results["downstream"].sel(ablated="attn.0", component="head.9.0")
