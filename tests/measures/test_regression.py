"""Compensation regressed on direct effect: closed forms, scipy's regression, and what has none."""

import numpy as np
import pytest
import scipy.stats
import synthetic
import xarray as xr
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hydrascope.measures import (
    Bootstrap,
    best_sublayer,
    compensation,
    compensation_regression,
    direct_effect,
    per_prompt,
    regression,
    repair_profile,
)
from hydrascope.measures.regression import holds_from
from hydrascope.utils.errors import HydrascopeError

FEW = Bootstrap(resamples=40)


def fitted(x: list[float] | np.ndarray, y: list[float] | np.ndarray) -> xr.Dataset:
    """The regression of one sublayer."""
    return regression(xr.DataArray(x, dims="prompt"), xr.DataArray(y, dims="prompt"), FEW)


def test_without_noise_the_slope_is_the_sum_of_the_shares() -> None:
    results = synthetic.results(5, 12, 3, noise=0, patch_noise=0)
    fit = compensation_regression(per_prompt(results), FEW)
    expected = (synthetic.response(5) * synthetic.downstream(5)).sum(1)
    np.testing.assert_allclose(fit["slope"].sel(bound="estimate")[:-1], expected[:-1], atol=1e-5)
    np.testing.assert_allclose(fit["intercept"].sel(bound="estimate")[:-1], 0, atol=1e-5)
    restores = expected[:-1] > 0.01
    np.testing.assert_allclose(fit["r2"].sel(bound="estimate")[:-1][restores], 1, atol=1e-6)
    np.testing.assert_allclose(fit["slope"].sel(bound="low")[:-1], expected[:-1], atol=1e-4)


@given(layers=st.integers(1, 4), prompts=st.integers(3, 12), seed=st.integers(0, 99), parallel=st.booleans())
@settings(max_examples=10, deadline=None)
def test_every_sublayer_is_scipys_regression(layers: int, prompts: int, seed: int, parallel: bool) -> None:
    results = synthetic.results(layers, prompts, 2, seed, parallel=parallel)
    effects = per_prompt(results)
    fit = compensation_regression(effects, FEW).sel(bound="estimate")
    x, y = direct_effect(effects), compensation(effects)["compensation"]
    for a in range(2 * layers):
        if results["downstream"][a].any():
            plain = scipy.stats.linregress(x[:, a], y[:, a])
            np.testing.assert_allclose(fit["slope"][a], plain.slope, rtol=1e-7, atol=1e-9)
            np.testing.assert_allclose(fit["intercept"][a], plain.intercept, rtol=1e-7, atol=1e-9)
            np.testing.assert_allclose(fit["r2"][a], plain.rvalue**2, rtol=1e-7, atol=1e-9)
        else:
            assert fit.isel(ablated=a).isnull().all().to_array().all()


@given(offset=st.floats(-1e4, 1e4), scale=st.sampled_from([1e-6, 1.0, 1e6]), seed=st.integers(0, 999))
@settings(max_examples=15, deadline=None)
def test_a_line_is_found_wherever_it_lies(offset: float, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=9)
    assume(np.ptp(x) > 0.1)
    fit = fitted(x * scale + offset * scale, 0.4 * x * scale - 2).sel(bound="estimate")
    np.testing.assert_allclose(fit["slope"], 0.4, rtol=1e-6)
    np.testing.assert_allclose(fit["r2"], 1, rtol=1e-6)


@given(value=st.floats(-1e6, 1e6), prompts=st.integers(1, 9))
@settings(max_examples=15, deadline=None)
def test_a_constant_direct_effect_has_no_slope(value: float, prompts: int) -> None:
    fit = fitted(np.full(prompts, value), np.arange(float(prompts)))
    assert fit.to_array().isnull().all()


@given(value=st.floats(-1e6, 1e6))
@settings(max_examples=15, deadline=None)
def test_a_constant_response_has_slope_zero_and_no_r2(value: float) -> None:
    fit = fitted(np.arange(9.0) * 0.1, np.full(9, value)).sel(bound="estimate")
    assert fit["slope"] == 0
    np.testing.assert_allclose(fit["intercept"], value)
    assert np.isnan(fit["r2"])
    assert np.isnan(fit["correlation"])


def test_one_prompt_has_no_regression() -> None:
    assert fitted([1.0], [2.0]).to_array().isnull().all()


def test_two_prompts_have_a_line_and_no_interval() -> None:
    fit = fitted([1.0, 2.0], [0.0, 3.0])
    assert fit["slope"].sel(bound="estimate") == 3
    assert fit["slope"].sel(bound=["low", "high"]).isnull().all()


def test_a_missing_value_is_not_left_out() -> None:
    fit = regression(
        xr.DataArray([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.5]], dims=("prompt", "ablated")),
        xr.DataArray([[0.0, 1.0], [1.0, np.nan], [2.0, 5.0], [3.0, 3.0]], dims=("prompt", "ablated")),
        FEW,
    ).sel(bound="estimate")
    assert fit["slope"][0] == 1
    assert fit.isel(ablated=1).to_array().isnull().all()


def shares_with(slopes: dict[str, float], layers: int) -> np.ndarray:
    """A response matrix in which the last MLP restores the given share of each named sublayer's effect."""
    shares = np.zeros((2 * layers, 2 * layers))
    for label, slope in slopes.items():
        shares[synthetic.labels(layers).index(label), -1] = slope
    return shares


def test_the_profile_of_known_slopes() -> None:
    slopes = {"attn.0": 0.5, "attn.1": 1.4, "attn.2": -0.3, "attn.3": 0.8, "mlp.0": 2.0}
    results = synthetic.results(4, 30, 2, shares=shares_with(slopes, 4), noise=0, patch_noise=0)
    effects = per_prompt(results)
    profile = repair_profile(effects, "attn", FEW)
    for bound in ("estimate", "low", "high"):
        at = profile.sel(bound=bound)
        assert (at["partial"], at["partial_from"], at["repairing"], at["slopes"]) == (3, 2, 3, 4)
    of_mlps = repair_profile(effects, "mlp", FEW).sel(bound="estimate")
    assert (of_mlps["partial"], of_mlps["partial_from"], of_mlps["slopes"]) == (2, 1, 3)


def test_the_best_sublayer_is_the_one_with_least_noise() -> None:
    results = synthetic.results(4, 40, 2, shares=shares_with({f"attn.{i}": 0.6 for i in range(4)}, 4), noise=1)
    quiet = synthetic.results(4, 40, 2, shares=shares_with({"attn.2": 0.6}, 4), noise=0, patch_noise=0)
    # The same seed gives both the same intact network, so that one ablation's runs can be exchanged.
    np.testing.assert_array_equal(results["unembed"], quiet["unembed"])
    results["unembed_ablated"][:, :, 4] = quiet["unembed_ablated"][:, :, 4]
    profile = repair_profile(per_prompt(results), "attn", FEW)
    assert profile["best"].values.tolist() == [2, 2, 2]
    assert best_sublayer(per_prompt(results)) == "attn.2"


def test_the_profile_is_missing_where_a_value_is() -> None:
    results = synthetic.results(3, 10, 1)
    results["unembed_ablated"][0, 3, 0, 5] = np.nan
    assert repair_profile(per_prompt(results), "attn", FEW).to_array().isnull().all()
    # Which MLP is best isn't known: none may be compensated for.
    assert repair_profile(per_prompt(results), "mlp", FEW).drop_vars("best").to_array().notnull().all()


def test_no_sublayer_of_the_kind() -> None:
    results = synthetic.results(3, 10, 1, ablated=["attn.0", "attn.1", "mlp.2"])
    effects = per_prompt(results)
    assert best_sublayer(effects, "mlp") is None
    with pytest.raises(HydrascopeError, match="no ablated mlp sublayer"):
        repair_profile(effects, "mlp", FEW)


@given(holds=st.lists(st.booleans(), min_size=1, max_size=8))
@settings(deadline=None)
def test_from_where_on_a_condition_holds(holds: list[bool]) -> None:
    positions = np.arange(len(holds)) * 2 + 1
    expected = next((int(positions[i]) for i in range(len(holds)) if all(holds[i:])), 99)
    found = holds_from(xr.DataArray(holds, dims="ablated"), positions, 99)
    assert int(found) == expected
