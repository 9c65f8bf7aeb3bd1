"""Agreement, restoration, localisation, erasure and shift, each on results whose answer is known."""

import numpy as np
import pytest
import scipy.stats
import synthetic
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from hydrascope.measures import (
    Bootstrap,
    Sigma,
    agreement,
    compensation,
    compensation_regression,
    direct_effect,
    erasure,
    localisation,
    of_kind,
    outcome,
    per_prompt,
    response_shift,
    restoration,
    strongest,
    three_answers,
)
from hydrascope.utils.errors import HydrascopeError

FEW = Bootstrap(resamples=40)


@given(seed=st.integers(0, 99), prompts=st.integers(3, 15))
@settings(max_examples=10, deadline=None)
def test_agreement_is_pearsons_correlation_and_a_plain_count(seed: int, prompts: int) -> None:
    results = synthetic.results(3, prompts, 2, seed)
    ours = agreement(per_prompt(results), FEW).sel(bound="estimate")
    lost = -results["total"].values[0].astype(np.float64).mean(-1)
    for a in range(6):
        direct = results["unembed"].values[0, :, a].astype(np.float64)
        expected = scipy.stats.pearsonr(direct, lost[:, a]).statistic
        np.testing.assert_allclose(ours["correlation"][a], expected, atol=1e-9)
        exceeding = sum(d > t for d, t in zip(direct, lost[:, a], strict=True))
        np.testing.assert_allclose(ours["share"][a], exceeding / prompts)


def test_agreement_counts_no_missing_prompt() -> None:
    results = synthetic.results(2, 5, 1)
    results["total"][0, 0, 1] = np.nan
    ours = agreement(per_prompt(results), FEW)
    assert ours.isel(ablated=1).to_array().isnull().all()
    assert ours["share"].isel(ablated=0).notnull().all()


@pytest.mark.parametrize("patch_noise", [0, 0.3])
def test_restoration_without_noise_is_what_was_put_in(patch_noise: float) -> None:
    results = synthetic.results(4, 9, 3, heads=2, noise=0, patch_noise=patch_noise, norm_share=0.2, dtype="float64")
    shares = restoration(per_prompt(results), FEW).sel(bound="estimate")
    known = synthetic.response(4) * synthetic.downstream(4)
    known = np.concatenate([known, np.repeat(known[0::2], 2, axis=0)])
    # A tenth of the effect, half of the norm's share, is missing from what is removed: the norm answers at once.
    expected = {
        "attention": known[:, 0::2].sum(1),
        "mlp": known[:, 1::2].sum(1),
        "norm": 0.1 + 0 * known[:, 0],
        "restored": known.sum(1) + 0.1,
        "lost": 0.8 - known.sum(1),
        "restored_slope": known.sum(1) + 0.1,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(shares[name], value / 0.9, rtol=1e-9, atol=1e-9, err_msg=name)


@given(seed=st.integers(0, 99), parallel=st.booleans(), sigma=st.sampled_from(["clean", "own"]))
@settings(max_examples=15, deadline=None)
def test_the_terms_of_what_is_restored_add_up_to_it(seed: int, parallel: bool, sigma: Sigma) -> None:
    runs = [*synthetic.labels(3), *synthetic.head_labels(3, 2), "attn.0+mlp.1", "attn.0|mlp.1"]
    results = synthetic.results(3, 12, 2, seed, parallel=parallel, heads=2, ablated=runs, dtype="float64")
    shares = restoration(per_prompt(results, sigma=sigma), FEW).sel(bound="estimate")
    np.testing.assert_allclose(shares["attention"] + shares["mlp"] + shares["norm"], shares["restored"], atol=1e-9)
    np.testing.assert_allclose(shares["restored"] + shares["lost"], 1, atol=1e-12)


def test_the_norms_share_is_what_it_does_beyond_answering_to_the_ablated_sublayer() -> None:
    """(s − 1)(e + Σ u^k) less (s_δ − 1)(e + Σ u + δ), s_δ the scale where only the ablated sublayer has changed."""
    rng = np.random.default_rng(5)
    results = synthetic.results(3, 7, 2, norm_share=0.3, dtype="float64")
    lone = 1 + 0.05 * rng.normal(size=results["scale"].shape)
    e, unembed = results["embed"].values[0], results["unembed"].values[0]
    after = results["unembed_ablated_by_patch"].values[0]
    own = np.stack([after[:, k, :, k] - unembed[:, k, None] for k in range(6)], axis=1)
    intact = (e + unembed.sum(1))[:, None, None]
    results["direct"][0] = lone * (intact + own) - intact
    norm = (results["scale"].values - 1) * (e[:, None, None] + after.sum(-1)) - (lone - 1) * (intact + own)
    expected = norm.mean((0, 2)) / -results["direct"].values[0].mean((0, 2))
    np.testing.assert_allclose(restoration(per_prompt(results), FEW)["norm"].sel(bound="estimate"), expected, rtol=1e-9)


def test_what_is_restored_does_not_depend_on_the_scale_that_is_read_with() -> None:
    results = synthetic.results(3, 9, 2, norm_share=0.4)
    clean, own = (restoration(per_prompt(results, sigma=sigma), FEW) for sigma in ("clean", "own"))
    same = ["restored", "lost", "restored_slope"]
    xr.testing.assert_identical(clean[same], own[same])
    assert abs(clean["attention"] - own["attention"]).max() > 1e-4


@given(seed=st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_restored_is_a_ratio_of_means_and_a_plain_slope(seed: int) -> None:
    results = synthetic.results(3, 8, 2, seed)
    shares = restoration(per_prompt(results), FEW).sel(bound="estimate")
    direct, total = (results[name].values[0].astype(np.float64).mean(-1) for name in ("direct", "total"))
    np.testing.assert_allclose(shares["restored"], 1 - total.mean(0) / direct.mean(0))
    for a in range(6):
        slope = scipy.stats.linregress(-direct[:, a], total[:, a] - direct[:, a]).slope
        np.testing.assert_allclose(shares["restored_slope"][a], slope, rtol=1e-7)


def test_the_compensated_share_is_a_ratio_of_means() -> None:
    results = synthetic.results(3, 8, 2)
    effects = per_prompt(results)
    ratio = compensation(effects)["compensation"].mean("prompt") / direct_effect(effects).mean("prompt")
    np.testing.assert_allclose(restoration(effects, FEW)["compensated"].sel(bound="estimate"), ratio)


def test_restoration_knows_unread_heads_by_what_is_removed() -> None:
    options = {"heads": 2, "ablated": ["attn.1", "head.1.0"]}
    both = (synthetic.results(3, 8, 2, read_heads=each, **options) for each in (True, False))
    read, unread = (restoration(per_prompt(results), FEW) for results in both)
    np.testing.assert_array_equal(unread["restored"], read["restored"])
    np.testing.assert_array_equal(unread["norm"], read["norm"])
    assert unread["compensated"].sel(bound="estimate").isnull().values.tolist() == [False, True]


def test_nothing_removed_has_no_shares() -> None:
    results = synthetic.results(2, 4, 1)
    for name in ("unembed", "unembed_ablated", "unembed_ablated_own", "total", "direct"):
        results[name][:] = 0
    assert restoration(per_prompt(results), FEW).to_array().isnull().all()


def test_of_rounding_there_is_no_share_and_no_slope() -> None:
    """Rounding is all that an MLP of a parallel block removes where its twin ends in the same token."""
    results = synthetic.results(3, 12, 2)
    noise = 1e-6 * np.random.default_rng(0).normal(size=results["direct"][..., 2, :].shape)
    small, rounding = results.copy(deep=True), results.copy(deep=True)
    small["direct"][..., 2, :] = 1e-2 * (1 + 1e4 * noise)
    rounding["direct"][..., 2, :] = noise
    before, of_small, found = (restoration(per_prompt(each), FEW) for each in (results, small, rounding))
    unknown = found.isel(ablated=2)[["restored", "lost", "attention", "mlp", "norm", "restored_slope"]]
    assert unknown.to_array().isnull().all()
    assert of_small.isel(ablated=2)["restored_slope"].notnull().all()
    others = [0, 1, 3, 4]
    xr.testing.assert_equal(found.isel(ablated=others), before.isel(ablated=others))
    slopes = {each.ablated: each for each in three_answers(per_prompt(rounding), "attn", FEW)[1].each}
    assert np.isnan([slopes["attn.1"].estimate, slopes["attn.1"].low]).all()
    made = outcome(per_prompt(rounding)).isel(ablated=2)
    assert (made["removed"] == 0).all()
    np.testing.assert_array_equal(made["restored"], -made["lost"])


@given(seed=st.integers(0, 99), share=st.floats(0, 2), parallel=st.booleans())
@settings(max_examples=15, deadline=None)
def test_localisation_is_a_plain_count(seed: int, share: float, parallel: bool) -> None:
    results = synthetic.results(4, 4, 2, seed, parallel=parallel)
    ours = localisation(per_prompt(results), share)
    after = results["unembed_ablated"].values[0].astype(np.float64)
    clean = results["unembed"].values[0].astype(np.float64)
    for a, label in enumerate(synthetic.labels(4)):
        later = [2 * block for block in range(int(label.split(".")[1]) + 1, 4)]
        assert ours["available"][a] == len(later)
        for p in range(4):
            moved = [abs(after[p, a, c] - clean[p, c]) > share * abs(clean[p, a]) for c in later]
            assert ours["changed"][p, a] == sum(moved)


def test_localisation_of_a_single_backup() -> None:
    shares = np.zeros((8, 8))
    shares[0, [2, 3, 5]] = 0.5  # attn.1, and two MLPs that don't count
    results = synthetic.results(4, 6, 2, shares=shares, noise=0, patch_noise=0)
    changed = localisation(per_prompt(results))["changed"]
    assert (changed.sel(ablated="attn.0") == 1).all()
    assert (changed.sel(ablated="attn.1") == 0).all()


def test_localisation_does_not_count_what_is_missing() -> None:
    results = synthetic.results(3, 3, 1)
    results["unembed_ablated"][0, 1, 0, 4] = np.nan
    changed = localisation(per_prompt(results))["changed"]
    assert np.isnan(changed[1, 0])
    assert changed.isnull().sum() == 1


def test_the_strongest_sublayer_of_each_prompt() -> None:
    results = synthetic.results(3, 5, 1)
    direct = of_kind(direct_effect(per_prompt(results)), "ablated", "attn")
    for p, label in enumerate(strongest(direct).values):
        assert results["unembed"].sel(component=label)[0, p] == results["unembed"][0, p, 0::2].max()


def erasing_results(attenuated: float) -> xr.Dataset:
    """Six blocks; of the late MLPs 3, 4, 5 two erase one logit each, and ablating attn.2 takes part of it away."""
    shares = np.zeros((12, 12))
    results = synthetic.results(6, 10, 2, shares=shares, noise=0, patch_noise=0)
    for label, value in {"mlp.1": -1.0, "mlp.3": -1.0, "mlp.4": -1.0, "mlp.5": 2.0}.items():
        c = synthetic.labels(6).index(label)
        results["unembed"][..., c] = value
        results["unembed_ablated"][..., c] = value
    attn_2 = synthetic.labels(6).index("attn.2")
    results["unembed_ablated"][:, :, attn_2, synthetic.labels(6).index("mlp.3")] = -1 + attenuated
    results["unembed_ablated"][:, :, attn_2, synthetic.labels(6).index("mlp.5")] = 1.0
    return results


@pytest.mark.parametrize(("attenuated", "count"), [(0.4, 1), (-0.2, 0)])
def test_erasure_of_known_mlps(attenuated: float, count: int) -> None:
    found = erasure(per_prompt(erasing_results(attenuated)), "attn.2", bootstrap=FEW)
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
    effects = per_prompt(results)
    assert list(erasure(effects, "mlp.3", bootstrap=FEW)["component"].values) == ["mlp.4", "mlp.5"]
    assert erasure(effects, "attn.2", late=0.8, bootstrap=FEW)["component"].values == ["mlp.5"]
    nothing = erasure(effects, "mlp.5", bootstrap=FEW).sel(bound="estimate")
    assert nothing["erasing"] == 0
    assert np.isnan(nothing["attenuation"])
    with pytest.raises(HydrascopeError, match=r"attn\.9 wasn't ablated in this run"):
        erasure(effects, "attn.9")


def test_erasure_is_missing_where_a_value_is() -> None:
    results = erasing_results(0.4)
    results["unembed"][0, 2, synthetic.labels(6).index("mlp.4")] = np.nan
    found = erasure(per_prompt(results), "attn.2", bootstrap=FEW)
    assert found[["erasing", "attenuated", "attenuation"]].to_array().isnull().all()


def test_the_shift_to_mlps_where_it_was_put() -> None:
    layers = 6
    shares = np.zeros((12, 12))
    for block, mlp_share in enumerate([0.2, 0.9, 0.1, 0.4, 0.8]):
        shares[2 * block, 2 * block + 2], shares[2 * block, -1] = 1 - mlp_share, mlp_share
    results = synthetic.results(layers, 20, 2, shares=shares, noise=0)
    found = response_shift(per_prompt(results), bootstrap=FEW)
    for bound in ("estimate", "low", "high"):
        np.testing.assert_allclose(found["mlp_share"].sel(bound=bound), [0.2, 0.9, 0.1, 0.4, 0.8], rtol=1e-3)
        assert found["block"].sel(bound=bound) == 4
    assert list(found["ablated"].values) == [f"attn.{block}" for block in range(5)]  # none above attn.5


def test_no_shift_where_attention_answers_to_the_top() -> None:
    shares = np.zeros((8, 8))
    shares[[0, 2, 4], 6] = 0.5
    found = response_shift(per_prompt(synthetic.results(4, 9, 2, shares=shares, noise=0)), bootstrap=FEW)
    assert (found["block"] == 4).all()


def test_no_shift_without_a_response() -> None:
    found = response_shift(per_prompt(synthetic.results(4, 9, 2, shares=np.zeros((8, 8)), noise=0)), bootstrap=FEW)
    assert found.to_array().isnull().all()


def test_a_network_too_small_for_a_shift() -> None:
    with pytest.raises(HydrascopeError, match="no ablated attn sublayer"):
        response_shift(per_prompt(synthetic.results(1, 4, 1)))


def test_a_ratio_to_what_may_be_nothing_has_no_bounds() -> None:
    results = synthetic.results(2, 8, 1)
    effect = np.array([1, -1, 1, -1, 1, -1, 1, -0.5])
    results["unembed"][0, :, 0] = effect
    results["direct"][0, :, 0, 0] = -effect
    shares = restoration(per_prompt(results), FEW).sel(ablated="attn.0")
    assert shares["restored"].sel(bound="estimate").notnull()
    for name in ("restored", "compensated", "attention", "mlp", "norm", "lost"):
        assert shares[name].sel(bound=["low", "high"]).isnull().all()


def test_heads_are_measured_like_sublayers() -> None:
    """Each head of two that make up their sublayer, in a network that answers to both alike."""
    results = synthetic.results(4, 12, 2, heads=2, noise=0, patch_noise=0, dtype="float64")
    effects = per_prompt(results)
    fit = compensation_regression(effects, FEW)["slope"].sel(bound="estimate")
    for head in ("head.1.0", "head.1.1"):
        np.testing.assert_allclose(fit.sel(ablated=head), fit.sel(ablated="attn.1"), rtol=1e-9)
    reached = localisation(effects)
    assert reached["available"].sel(ablated="head.1.0") == 2
    np.testing.assert_array_equal(reached["changed"].sel(ablated="head.1.0"), reached["changed"].sel(ablated="attn.1"))
    found = erasure(effects, "head.1.1", bootstrap=FEW)
    assert list(found["component"].values) == ["mlp.2", "mlp.3"]
    xr.testing.assert_allclose(agreement(effects, FEW).sel(ablated="head.1.0", drop=True), plain(results, "head.1.0"))


def plain(results: xr.Dataset, part: str) -> xr.Dataset:
    """The agreement of one component, alone."""
    return agreement(per_prompt(results.sel(ablated=[part])), FEW).isel(ablated=0, drop=True)


@pytest.mark.parametrize("dtype", [object, str, np.dtypes.StringDType()])
def test_labels_may_be_any_kind_of_string(dtype: object) -> None:
    results = synthetic.results(3, 6, 2)
    effects = per_prompt(results)
    same = results.assign_coords(
        {
            name: (dim, np.array([str(label) for label in results[name].values], dtype))
            for dim in ("ablated", "component")
            for name in (dim, f"{dim}_kind")
        }
    )
    top = strongest(of_kind(direct_effect(per_prompt(same)), "ablated", "attn"))
    assert list(top.values) == list(strongest(of_kind(direct_effect(effects), "ablated", "attn")).values)
    np.testing.assert_array_equal(compensation(per_prompt(same))["mlp"], compensation(effects)["mlp"])
    np.testing.assert_array_equal(localisation(per_prompt(same))["changed"], localisation(effects)["changed"])
    assert erasure(per_prompt(same), "attn.1", bootstrap=FEW)["erasing"].equals(
        erasure(effects, "attn.1", bootstrap=FEW)["erasing"]
    )
