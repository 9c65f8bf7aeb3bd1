"""Agreement, restoration, localisation, erasure and shift, each on results whose answer is known."""

import numpy as np
import pytest
import scipy.stats
import synthetic
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from hydrascope.errors import HydrascopeError
from hydrascope.measures import (
    Bootstrap,
    agreement,
    average_patches,
    compensation,
    direct_effect,
    erasure,
    localisation,
    of_kind,
    response_shift,
    restoration,
    strongest,
)

FEW = Bootstrap(resamples=40)


@given(seed=st.integers(0, 99), prompts=st.integers(3, 15))
@settings(max_examples=10, deadline=None)
def test_agreement_is_pearsons_correlation_and_a_plain_count(seed: int, prompts: int) -> None:
    results = synthetic.results(3, prompts, 2, seed)
    ours = agreement(results, FEW).sel(bound="estimate")
    lost = -results["total"].values.astype(np.float64).mean(-1)
    for a in range(6):
        direct = results["unembed"].values[:, a].astype(np.float64)
        expected = scipy.stats.pearsonr(direct, lost[:, a]).statistic
        np.testing.assert_allclose(ours["correlation"][a], expected, atol=1e-9)
        exceeding = sum(d > t for d, t in zip(direct, lost[:, a], strict=True))
        np.testing.assert_allclose(ours["share"][a], exceeding / prompts)


def test_agreement_counts_no_missing_prompt() -> None:
    results = synthetic.results(2, 5, 1)
    results["total"][0, 1] = np.nan
    ours = agreement(results, FEW)
    assert ours.isel(ablated=1).to_array().isnull().all()
    assert ours["share"].isel(ablated=0).notnull().all()


def test_restoration_without_noise_is_what_was_put_in() -> None:
    results = synthetic.results(4, 9, 3, noise=0, patch_noise=0.3, norm_share=0.15)
    shares = restoration(results, FEW).sel(bound="estimate")
    known = synthetic.response(4) * synthetic.downstream(4)
    np.testing.assert_allclose(shares["attention"], known[:, 0::2].sum(1), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(shares["mlp"], known[:, 1::2].sum(1), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(shares["norm"], 0.15, rtol=1e-3)
    np.testing.assert_allclose(shares["lost"], 0.85 - known.sum(1), rtol=1e-3, atol=1e-3)


@given(seed=st.integers(0, 99), parallel=st.booleans())
@settings(max_examples=10, deadline=None)
def test_the_shares_of_what_is_removed_add_up_to_one(seed: int, parallel: bool) -> None:
    shares = restoration(synthetic.results(3, 12, 2, seed, parallel=parallel), FEW).sel(bound="estimate")
    total = shares["attention"] + shares["mlp"] + shares["norm"] + shares["lost"]
    # The tolerance is float32's, over a mean removed effect that may be small.
    np.testing.assert_allclose(total, 1, atol=1e-3)


def test_the_restored_share_is_a_ratio_of_means() -> None:
    results = synthetic.results(3, 8, 2)
    ratio = compensation(results)["compensation"].mean("prompt") / direct_effect(results).mean("prompt")
    np.testing.assert_allclose(restoration(results, FEW)["restored"].sel(bound="estimate"), ratio)


def test_nothing_removed_has_no_shares() -> None:
    results = synthetic.results(2, 4, 1)
    results["unembed"][:] = 0
    results["unembed_ablated"][:] = 0
    assert restoration(results, FEW).to_array().isnull().all()


@given(seed=st.integers(0, 99), share=st.floats(0, 2), parallel=st.booleans())
@settings(max_examples=15, deadline=None)
def test_localisation_is_a_plain_count(seed: int, share: float, parallel: bool) -> None:
    results = synthetic.results(4, 4, 2, seed, parallel=parallel)
    ours = localisation(results, share)
    after = results["unembed_ablated"].values.astype(np.float64).mean(2)
    clean = results["unembed"].values.astype(np.float64)
    for a, label in enumerate(synthetic.labels(4)):
        later = [2 * layer for layer in range(int(label.split(".")[1]) + 1, 4)]
        assert ours["available"][a] == len(later)
        for p in range(4):
            moved = [abs(after[p, a, c] - clean[p, c]) > share * abs(clean[p, a]) for c in later]
            assert ours["changed"][p, a] == sum(moved)


def test_localisation_of_a_single_backup() -> None:
    shares = np.zeros((8, 8))
    shares[0, [2, 3, 5]] = 0.5  # attn.1, and two MLPs that don't count
    results = synthetic.results(4, 6, 2, shares=shares, noise=0, patch_noise=0)
    changed = localisation(results)["changed"]
    assert (changed.sel(ablated="attn.0") == 1).all()
    assert (changed.sel(ablated="attn.1") == 0).all()


def test_localisation_does_not_count_what_is_missing() -> None:
    results = synthetic.results(3, 3, 1)
    results["unembed_ablated"][1, 0, 0, 4] = np.nan
    changed = localisation(results)["changed"]
    assert np.isnan(changed[1, 0])
    assert changed.isnull().sum() == 1


def test_the_strongest_layer_of_each_prompt() -> None:
    results = synthetic.results(3, 5, 1)
    direct = of_kind(direct_effect(results), "ablated", "attn")
    for p, label in enumerate(strongest(direct).values):
        assert results["unembed"].sel(component=label)[p] == results["unembed"][p, 0::2].max()


def erasing_results(attenuated: float) -> xr.Dataset:
    """Six layers; of the late MLPs 3, 4, 5 two erase one logit each, and ablating attn.2 takes part of it away."""
    shares = np.zeros((12, 12))
    results = synthetic.results(6, 10, 2, shares=shares, noise=0, patch_noise=0)
    for label, value in {"mlp.1": -1.0, "mlp.3": -1.0, "mlp.4": -1.0, "mlp.5": 2.0}.items():
        c = synthetic.labels(6).index(label)
        results["unembed"][:, c] = value
        results["unembed_ablated"][..., c] = value
    attn_2 = synthetic.labels(6).index("attn.2")
    results["unembed_ablated"][:, attn_2, :, synthetic.labels(6).index("mlp.3")] = -1 + attenuated
    results["unembed_ablated"][:, attn_2, :, synthetic.labels(6).index("mlp.5")] = 1.0
    return results


@pytest.mark.parametrize(("attenuated", "count"), [(0.4, 1), (-0.2, 0)])
def test_erasure_of_known_mlps(attenuated: float, count: int) -> None:
    found = erasure(erasing_results(attenuated), "attn.2", bootstrap=FEW)
    assert list(found["component"].values) == ["mlp.3", "mlp.4", "mlp.5"]
    for bound in ("estimate", "low", "high"):
        at = found.sel(bound=bound)
        assert at["erasing"] == 2
        assert at["attenuated"] == count
        np.testing.assert_allclose(at["attenuation"], attenuated / 2, rtol=1e-5)
        np.testing.assert_allclose(at["unembed"], [-1, -1, 2])
        np.testing.assert_allclose(at["change"], [attenuated, 0, -1], atol=1e-6)


def test_erasure_looks_downstream_only_and_as_late_as_asked() -> None:
    results = erasing_results(0.4)
    assert list(erasure(results, "mlp.3", bootstrap=FEW)["component"].values) == ["mlp.4", "mlp.5"]
    assert erasure(results, "attn.2", late=0.8, bootstrap=FEW)["component"].values == ["mlp.5"]
    nothing = erasure(results, "mlp.5", bootstrap=FEW).sel(bound="estimate")
    assert nothing["erasing"] == 0
    assert np.isnan(nothing["attenuation"])
    with pytest.raises(HydrascopeError, match=r"attn\.9 isn't among"):
        erasure(results, "attn.9")


def test_erasure_is_missing_where_a_value_is() -> None:
    results = erasing_results(0.4)
    results["unembed"][2, synthetic.labels(6).index("mlp.4")] = np.nan
    found = erasure(results, "attn.2", bootstrap=FEW)
    assert found[["erasing", "attenuated", "attenuation"]].to_array().isnull().all()


def test_the_shift_to_mlps_where_it_was_put() -> None:
    layers = 6
    shares = np.zeros((12, 12))
    for layer, mlp_share in enumerate([0.2, 0.9, 0.1, 0.4, 0.8]):
        shares[2 * layer, 2 * layer + 2], shares[2 * layer, -1] = 1 - mlp_share, mlp_share
    results = synthetic.results(layers, 20, 2, shares=shares, noise=0)
    found = response_shift(results, bootstrap=FEW)
    for bound in ("estimate", "low", "high"):
        np.testing.assert_allclose(found["mlp_share"].sel(bound=bound), [0.2, 0.9, 0.1, 0.4, 0.8], rtol=1e-3)
        assert found["layer"].sel(bound=bound) == 4
    assert list(found["ablated"].values) == [f"attn.{layer}" for layer in range(5)]  # none above attn.5


def test_no_shift_where_attention_answers_to_the_top() -> None:
    shares = np.zeros((8, 8))
    shares[[0, 2, 4], 6] = 0.5
    found = response_shift(synthetic.results(4, 9, 2, shares=shares, noise=0), bootstrap=FEW)
    assert (found["layer"] == 4).all()


def test_no_shift_without_a_response() -> None:
    found = response_shift(synthetic.results(4, 9, 2, shares=np.zeros((8, 8)), noise=0), bootstrap=FEW)
    assert found.to_array().isnull().all()


def test_a_network_too_small_for_a_shift() -> None:
    with pytest.raises(HydrascopeError, match="no attn layer"):
        response_shift(synthetic.results(1, 4, 1))


def test_averaged_results_measure_the_same() -> None:
    results = synthetic.results(3, 6, 3)
    averaged = average_patches(results)
    for measure in (agreement, restoration, localisation, compensation):
        xr.testing.assert_identical(measure(results), measure(averaged))


def test_a_ratio_to_what_may_be_nothing_has_no_bounds() -> None:
    results = synthetic.results(2, 8, 1, noise=0, patch_noise=0)
    effect = np.array([1, -1, 1, -1, 1, -1, 1, -0.5])
    results["unembed"][:, 0] = effect
    results["unembed_ablated"][:, 0, 0, 0] = 0
    shares = restoration(results, FEW).sel(ablated="attn.0")
    assert shares["restored"].sel(bound="estimate").notnull()
    for name in ("restored", "attention", "mlp", "norm", "lost"):
        assert shares[name].sel(bound=["low", "high"]).isnull().all()


@pytest.mark.parametrize("dtype", [object, str, np.dtypes.StringDType()])
def test_labels_may_be_any_kind_of_string(dtype: object) -> None:
    results = synthetic.results(3, 6, 2)
    same = results.assign_coords(
        {name: np.array([str(label) for label in results[name].values], dtype) for name in ("ablated", "component")}
    )
    top = strongest(of_kind(direct_effect(same), "ablated", "attn"))
    assert list(top.values) == list(strongest(of_kind(direct_effect(results), "ablated", "attn")).values)
    np.testing.assert_array_equal(compensation(same)["mlp"], compensation(results)["mlp"])
    np.testing.assert_array_equal(localisation(same)["changed"], localisation(results)["changed"])
    assert erasure(same, "attn.1", bootstrap=FEW)["erasing"].equals(
        erasure(results, "attn.1", bootstrap=FEW)["erasing"]
    )
