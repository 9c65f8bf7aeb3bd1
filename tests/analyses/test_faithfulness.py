"""Faithfulness of circuits: against plain forward passes and areas added up by hand, and on the phantom."""

import numpy as np
import pytest
import xarray as xr
from brute import plain_effects
from intervals import expanded
from plain import Plain, Reader, loaded
from tiny import tiny

import hydrascope as hs
from hydrascope.analyses.faithfulness import SHARES
from hydrascope.measures import Bootstrap
from hydrascope.models import phantom
from hydrascope.utils.errors import HydrascopeError

PROMPTS = [[5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15, 16]]
ORDER = ["head.1.2", "mlp.0", "attn.2", "attn.0"]


def trapezoids(shares, heights) -> float:
    return sum((shares[i + 1] - shares[i]) * (heights[i] + heights[i + 1]) / 2 for i in range(len(shares) - 1))


def test_against_plain_forward_passes():
    """The readout itself, not its change, in every prompt and patch, of the components that MIB would keep."""
    model, ablation, shares = loaded("gpt2"), hs.Resample(2, seed=3), (0, 0.2, 0.25, 0.6, 0.75, 1)
    sources = hs.sweep(model, PROMPTS, ablation, ablate="attn.0")["patch_prompt"].values

    def readout(clean: Plain, ablated: Plain) -> float:
        return Reader.of_logit(model, int(clean.logits.argmax())).whole(ablated)

    readouts = plain_effects(model, PROMPTS, sources, ORDER, readout)
    # Ablated are the last in the order.
    mean = {kept: readouts[frozenset(range(kept, 4))].mean() for kept in range(5)}
    f = [(mean[kept] - mean[0]) / (mean[4] - mean[0]) for kept in (0, 0, 1, 2, 3, 4)]
    found = hs.analyses.faithfulness(model, PROMPTS, ablation, order=ORDER, shares=shares)
    estimate = found.sel(bound="estimate").isel(readout=0)
    assert found["kept"].values.tolist() == [0, 0, 1, 2, 3, 4]
    np.testing.assert_allclose(estimate["faithfulness"], f, atol=1e-9)
    np.testing.assert_allclose(estimate["cpr"], trapezoids(shares, f), atol=1e-9)
    np.testing.assert_allclose(estimate["cmd"], trapezoids(shares, [abs(1 - each) for each in f]), atol=1e-9)


def test_shares_are_the_benchmarks_and_whole_numbers_stay_whole():
    """Of 30 components a tenth is 3, though 0.1 · 30 is a little more, and 0.29 · 100 a little less than 29."""
    model = tiny("gpt2")
    neurons = [f"neuron.0.{number}" for number in range(100)]
    kept = hs.analyses.faithfulness(model, PROMPTS, hs.Zero(), order=neurons, shares=(0.1, 0.29, 0.295, 1))["kept"]
    assert kept.values.tolist() == [10, 29, 29, 100]
    few = hs.analyses.faithfulness(model, PROMPTS, hs.Zero(), order="layers")
    assert tuple(few["share"].values) == SHARES
    assert few["kept"].values.tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 3, 6]
    # Which other shares are asked for makes no difference.
    half = hs.analyses.faithfulness(model, PROMPTS, hs.Zero(), order="layers", shares=(0.5, 1))
    xr.testing.assert_allclose(half["faithfulness"], few["faithfulness"].sel(share=[0.5, 1]))


@pytest.mark.parametrize(("first", "second"), [(1.0, 0.6), (0.6, 1.0)])
def test_on_the_phantom_a_circuit_without_its_backups_does_more_than_the_model(first, second):
    """In the difference of two colours the source brings 1, the unwatched sublayer 0.6, and the backups take away what
    they would restore: together 1.6 less what is restored, without the backups 1.6."""
    model, prompts = hs.load_model("phantom", dtype="float64"), hs.load_prompts("phantom").limit(60)
    readouts, brings = [hs.LogitDifference()], {1.0: phantom.SOURCE, 0.6: phantom.UNWATCHED}
    order, shares = [brings[first], brings[second], "attn.4", "mlp.3", "mlp.5"], (0, 0.2, 0.4, 1)
    found = hs.analyses.faithfulness(model, prompts, hs.Zero(), order=order, shares=shares, readouts=readouts)
    alone = hs.sweep(model, prompts, hs.Zero(), ablate=phantom.SOURCE, readouts=readouts)
    removed = -alone["direct"].values.ravel()
    restored = np.where(alone["text"].str.startswith("perhaps"), 0.7, 0.9) * removed
    whole = (1.6 * removed - restored).mean()
    f = [0, first * removed.mean() / whole, 1.6 * removed.mean() / whole, 1]
    estimate = found.sel(bound="estimate").isel(readout=0)
    np.testing.assert_allclose(estimate["faithfulness"], f, atol=0.01)
    np.testing.assert_allclose(estimate["cpr"], trapezoids(shares, f), atol=0.01)
    np.testing.assert_allclose(estimate["cmd"], trapezoids(shares, [abs(1 - each) for each in f]), atol=0.01)
    bounds = found["faithfulness"].isel(readout=0, share=1)
    assert bounds.sel(bound="low") < f[1] < bounds.sel(bound="high")


def test_intervals_are_of_resampled_prompts():
    """Both lines of the ratio resampled together, and no bounds where the lower one may be 0."""
    model, bootstrap = tiny("gpt2"), Bootstrap(resamples=500, confidence=0.9)
    options = {"shares": (0, 0.5, 1), "bootstrap": bootstrap, "readouts": [hs.Logit(token) for token in range(20)]}
    found = hs.analyses.faithfulness(model, PROMPTS, hs.Zero(), order="layers", **options)
    drawn = np.random.default_rng(bootstrap.seed).integers(3, size=(500, 3))
    effect, everything = (found[name].values[:, drawn].mean(2) for name in ("effect", "everything"))
    low, high = np.quantile(everything, expanded(0.9, 3), axis=1)
    certain = low * high > 0
    assert 0 < certain.sum() < 20
    expected = np.quantile(1 - effect[..., 1] / everything, expanded(0.9, 3), axis=1)
    bounds = found["faithfulness"].isel(share=1).sel(bound=["low", "high"])
    np.testing.assert_allclose(bounds, np.where(certain, expected, np.nan), atol=1e-12)


def test_without_an_effect_there_is_nothing_to_be_faithful_to():
    model, prompts = hs.load_model("phantom", dtype="float64"), hs.load_prompts("phantom").limit(5)
    found = hs.analyses.faithfulness(model, prompts, hs.Zero(), order=["attn.0", "attn.5"])
    assert np.isnan(found["faithfulness"]).all()
    assert np.isnan(found["cpr"]).all()
    assert not found["everything"].any()


@pytest.mark.parametrize("shares", [(), (0.5,), (0.5, 0.2), (-0.1, 1), (0.5, 1.5), (0.5, 0.5), (float("nan"), 1)])
def test_what_cannot_be_asked(shares):
    with pytest.raises(HydrascopeError, match="invalid shares"):
        hs.analyses.faithfulness(tiny("gpt2"), PROMPTS, order="layers", shares=shares)
