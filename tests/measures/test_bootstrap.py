"""Intervals: each the percentiles of plainly recomputed statistics, covering as often as they say."""

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from intervals import expanded

from hydrascope.measures import Bootstrap, bootstrap, interval, mean_interval, regression, simultaneous
from hydrascope.utils.errors import HydrascopeError


def resamples(prompts: int, drawn: Bootstrap) -> list[np.ndarray]:
    """The indices of the prompts in each resample, written out."""
    weights = np.concatenate(list(bootstrap._weights(prompts, drawn)))
    return [np.repeat(np.arange(prompts), np.rint(row * prompts).astype(int)) for row in weights]


@given(prompts=st.integers(8, 30), seed=st.integers(0, 999))
@settings(max_examples=10, deadline=None)
def test_the_slope_of_every_resample_is_that_of_a_plain_regression(prompts: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(3, 1, prompts), rng.normal(size=prompts)
    drawn = Bootstrap(resamples=50, confidence=0.8, seed=seed)
    ours = regression(xr.DataArray(x, dims="prompt"), xr.DataArray(y, dims="prompt"), drawn)
    plain = [scipy.stats.linregress(x[chosen], y[chosen]) for chosen in resamples(prompts, drawn)]
    for name, values in {
        "slope": [fit.slope for fit in plain],
        "intercept": [fit.intercept for fit in plain],
        "r2": [fit.rvalue**2 for fit in plain],
        "correlation": [fit.rvalue for fit in plain],
    }.items():
        bounds = np.quantile(values, expanded(0.8, prompts))
        np.testing.assert_allclose(ours[name][1:], bounds, rtol=1e-8, atol=1e-10)


def test_resamples_are_as_large_as_the_sample_and_uniform() -> None:
    drawn = resamples(20, Bootstrap(resamples=4000))
    assert all(len(each) == 20 for each in drawn)
    counts = np.bincount(np.concatenate(drawn), minlength=20)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_the_same_seed_draws_the_same_and_another_other() -> None:
    values = xr.DataArray(np.random.default_rng(0).normal(size=30), dims="prompt")
    first = mean_interval(values, Bootstrap(200, seed=1))
    xr.testing.assert_identical(first, mean_interval(values, Bootstrap(200, seed=1)))
    assert not first.equals(mean_interval(values, Bootstrap(200, seed=2)))


def test_blocks_draw_the_same_as_a_single_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(bootstrap._weights(7, Bootstrap(100))))
    monkeypatch.setattr(bootstrap, "_MOST_WEIGHTS", 70)
    np.testing.assert_array_equal(whole, np.concatenate(list(bootstrap._weights(7, Bootstrap(100)))))


def test_it_agrees_with_scipy() -> None:
    values = np.random.default_rng(3).gamma(2, size=60)
    low, high = expanded(0.95, 60)
    theirs = scipy.stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=20_000,
        confidence_level=high - low,
        method="percentile",
        random_state=np.random.default_rng(1),
    ).confidence_interval
    ours = mean_interval(xr.DataArray(values, dims="prompt"), Bootstrap(20_000))
    spread = theirs.high - theirs.low
    np.testing.assert_allclose(ours[1:], [theirs.low, theirs.high], atol=0.03 * spread)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_coverage_of_a_slope_known_in_advance(confidence: float) -> None:
    # 400 data sets at once, one a layer: y = 0.7 x + noise that grows with x, as real responses do.
    rng = np.random.default_rng(7)
    x = rng.normal(size=(100, 400))
    y = 0.7 * x + rng.normal(size=x.shape) * (0.2 + 0.3 * abs(x))
    fit = regression(
        xr.DataArray(x, dims=("prompt", "ablated")),
        xr.DataArray(y, dims=("prompt", "ablated")),
        Bootstrap(800, confidence),
    )["slope"]
    covered = float(((fit[1] < 0.7) & (fit[2] > 0.7)).mean())
    # Four standard errors of 400 draws, and the percentile bootstrap's known shortfall at n = 100.
    assert abs(covered - confidence) < 4 * (confidence * (1 - confidence) / 400) ** 0.5 + 0.02


@pytest.mark.parametrize("prompts", [12, 40])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_of_a_mean_they_are_as_wide_as_students(prompts: int, confidence: float) -> None:
    values = np.random.default_rng(prompts).normal(size=prompts)
    theirs = scipy.stats.t(prompts - 1, values.mean(), scipy.stats.sem(values)).interval(confidence)
    samples = xr.Dataset({"v": (("prompt", "one"), values[:, None])})
    each = Bootstrap(20_000, confidence)
    for ours in (interval(lambda means: means, samples, each), simultaneous(lambda means: means, samples, each, "one")):
        np.testing.assert_allclose(ours["v"][1:, 0], theirs, atol=0.08 * (theirs[1] - theirs[0]))


#: How often intervals may miss that should in 2.5% of cases: of so many prompts, which vary much or not.
MISSES = {(10, False): 0.045, (10, True): 0.06, (30, False): 0.04, (30, True): 0.05, (200, False): 0.04}


@pytest.mark.parametrize(("prompts", "heavy"), MISSES)
def test_of_few_prompts_intervals_of_a_share_miss_little_more_often_than_they_say(prompts: int, heavy: bool) -> None:
    """As the docs say: how often they miss the share restored, 0.5, in 2,000 data sets, where they should in 2.5%."""
    rng = np.random.default_rng(0)
    size = (prompts, 2000)
    removed = 1 + 0.5 * rng.standard_normal(size)
    spread = rng.gamma(0.5, 2, size) if heavy else 1.0
    restored = 0.5 * removed + 0.5 * spread * rng.standard_normal(size)
    samples = xr.Dataset({name: (("prompt", "run"), of) for name, of in (("removed", removed), ("restored", restored))})
    share = interval(lambda means: means[["restored"]] / means["removed"], samples, Bootstrap(600, 0.975))["restored"]
    missed = float(((share[1] > 0.5) | (share[2] < 0.5)).mean())
    assert 0.015 < missed < MISSES[prompts, heavy], missed


def test_one_prompt_has_an_estimate_and_no_interval() -> None:
    bounds = mean_interval(xr.DataArray([2.0], dims="prompt"), Bootstrap(10))
    assert bounds[0] == 2
    assert bounds[1:].isnull().all()


def test_a_missing_value_makes_estimate_and_bounds_missing() -> None:
    values = xr.DataArray([[1.0, 1.0], [np.nan, 2.0], [3.0, 4.0]], dims=("prompt", "ablated"))
    bounds = mean_interval(values, Bootstrap(50))
    assert bounds[:, 0].isnull().all()
    assert bounds[:, 1].notnull().all()


def test_a_statistic_may_return_other_dimensions() -> None:
    samples = xr.Dataset({"v": (("prompt", "ablated"), np.arange(12.0).reshape(4, 3))})
    bounds = interval(lambda means: xr.Dataset({"top": means["v"].max("ablated")}), samples, Bootstrap(20))
    assert bounds["top"].dims == ("bound",)
    assert bounds["top"][0] == 6.5
    assert list(bounds["bound"].values) == ["estimate", "low", "high"]


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(HydrascopeError, match="at least one resample"):
        Bootstrap(resamples=0)
    with pytest.raises(HydrascopeError, match="between 0 and 1"):
        Bootstrap(confidence=95)
