"""Scores of estimates, against SciPy on the same means, and where it is known how well an estimate does."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from tiny import shared

import hydrascope as hs
from hydrascope.analyses.attribution import atp
from hydrascope.measures import Bootstrap, per_prompt, scores
from hydrascope.utils.errors import HydrascopeError

FEW = Bootstrap(resamples=200)
PROMPTS = [[place, 40 - place, (place * 7) % 61] for place in range(40)]
OPTIONS = {"ablate": "layers,heads", "target": 7}


@pytest.fixture(scope="module")
def exact() -> xr.Dataset:
    return hs.sweep(shared("gpt2"), PROMPTS, hs.Resample(2), **OPTIONS)


@pytest.fixture(scope="module")
def estimate() -> xr.Dataset:
    return atp(shared("gpt2"), PROMPTS, hs.Resample(2), **OPTIONS)


def guess(estimate: xr.Dataset, values: np.ndarray) -> xr.Dataset:
    """`estimate` with other values, [prompt, ablated]."""
    return estimate.assign(estimate=(("readout", "prompt", "ablated"), values[None]))


def test_the_numbers_of_scipy(exact, estimate):
    # Ties, as components above a readout inside the network have.
    tied = estimate["estimate"].values[0].round(1) * (np.arange(18) > 4)
    found = scores(per_prompt(exact), {"atp": estimate, "tied": guess(estimate, tied)}, bootstrap=FEW)
    assert found["pearson"].dims == ("bound", "prompts", "estimator")
    total = exact["total"].mean(("patch", "prompt")).values[0]
    for name, values in (("atp", estimate["estimate"].values[0]), ("tied", tied)):
        one = found.sel(prompts="all", estimator=name)
        mean = values.mean(0)
        assert float(one["pearson"].sel(bound="estimate")) == pytest.approx(stats.pearsonr(total, mean).statistic)
        assert float(one["spearman"].sel(bound="estimate")) == pytest.approx(stats.spearmanr(total, mean).statistic)
        top = {*np.argsort(-abs(total))[:10]} & {*np.argsort(-abs(mean), kind="stable")[:10]}
        assert float(one["top"].sel(bound="estimate")) == len(top) / 10
        for score in ("pearson", "spearman", "top"):
            low, middle, high = (float(one[score].sel(bound=bound)) for bound in ("low", "estimate", "high"))
            assert low <= middle + 1e-9
            assert low < high <= 1
            assert middle <= high + 1e-9
    assert float(found["seconds"].sel(estimator="atp")) == estimate.attrs["seconds"]


def test_the_exact_effects_agree_with_themselves(exact, estimate):
    same = guess(estimate, exact["total"].mean("patch").values[0])
    turned = same.isel(ablated=slice(None, None, -1))
    found = scores(per_prompt(exact), {"exact": same, "in another order": turned}, bootstrap=FEW)
    for score in ("pearson", "spearman", "top"):
        np.testing.assert_allclose(found[score].sel(prompts=["all", "little", "much"]), 1)
        np.testing.assert_allclose(found[score].sel(prompts="much − little"), 0, atol=1e-12)


def test_where_a_method_loses(exact, estimate):
    """All components of a prompt are repaired by one share; where it is large, one estimate knows nothing any more."""
    generator = np.random.default_rng(0)
    share = generator.permutation(np.linspace(0.1, 0.9, len(PROMPTS)))
    removed = np.linspace(1, 3, 18) * generator.choice([-1, 1], 18) + 0.1 * generator.standard_normal(
        (len(PROMPTS), 18)
    )
    total = -removed * (1 - share[:, None])
    dims = ("readout", "prompt", "ablated", "patch")
    made = {"direct": -removed, "total": total}
    known = exact.assign({name: (dims, np.repeat(values[None, ..., None], 2, -1)) for name, values in made.items()})
    much = share > np.median(share)
    loses = np.where(much[:, None], generator.standard_normal(total.shape), total)
    found = scores(per_prompt(known), {"loses": guess(estimate, loses), "keeps": guess(estimate, total)}, bootstrap=FEW)
    np.testing.assert_allclose(found["repaired"], share)
    pearson = found["pearson"]
    np.testing.assert_allclose(pearson.sel(prompts="little"), 1)
    assert float(abs(pearson.sel(prompts="much", estimator="loses", bound="estimate"))) < 0.7
    assert float(pearson.sel(prompts="much − little", estimator="loses", bound="high")) < 0
    np.testing.assert_allclose(pearson.sel(prompts="much − little", estimator="keeps"), 0, atol=1e-12)


def test_where_nothing_is_removed_directly_there_are_no_halves(estimate):
    options = {**OPTIONS, "at": 0}
    exact, guessed = (method(shared("gpt2"), PROMPTS, hs.Resample(2), **options) for method in (hs.sweep, atp))
    found = scores(per_prompt(exact), {"atp": guessed}, bootstrap=FEW)
    assert np.isfinite(found["pearson"].sel(prompts="all")).all()
    assert found["pearson"].sel(prompts=["little", "much", "much − little"]).isnull().all()


def test_what_is_of_something_else(exact, estimate):
    effects = per_prompt(exact)
    with pytest.raises(HydrascopeError, match="nothing to score"):
        scores(effects, {})
    for options, said in (
        ({"ablation": hs.Resample(2, seed=1)}, "another seed, 1, than the results, 0: make both alike"),
        ({"ablation": hs.Mean()}, "another ablation, mean"),
        ({"at": -2}, "another positions, -2"),
        ({"ablate": "layers"}, "has other components"),
        ({"readouts": hs.Logit(7)}, "no readout 'logit'"),
    ):
        asked = {"ablation": hs.Resample(2), **OPTIONS, **options}
        with pytest.raises(HydrascopeError, match=said):
            scores(effects, {"atp": atp(shared("gpt2"), PROMPTS, **asked)}, bootstrap=FEW)
    other = atp(shared("gpt2"), PROMPTS[1:], hs.Resample(2), **OPTIONS)
    with pytest.raises(HydrascopeError, match="another prompts_hash"):
        scores(effects, {"atp": other})
