"""Shares of the parts of a dictionary: numbers made by hand, whose answers are known."""

import numpy as np
import pytest
from feature_numbers import ABLATED, PARTS, RESTORED, SHARES, made

from hydrascope.measures import Bootstrap, feature_shares, mean_interval
from hydrascope.utils.errors import HydrascopeError

FEW = Bootstrap(resamples=300)


@pytest.mark.parametrize("readout", ["logit", "probe"])
def test_shares_are_those_that_were_put_in(readout: str) -> None:
    found, data = feature_shares(made(), readout, FEW), made().sel(readout=readout)
    assert {*found.data_vars} == {"response", "restored_by", "response_share", "restored_share"}
    for values in found.data_vars.values():
        assert values.dims == ("bound", "ablated", "part")
        assert list(values["ablated"].values) == ABLATED
        assert list(values["part"].values) == PARTS
    estimate = found.sel(bound="estimate")
    for name in ("response", "restored_by"):
        np.testing.assert_allclose(estimate[name], data[name].mean("prompt"), atol=1e-12)
    known = ABLATED[:2]
    # All prompts have the same share, so that no resample has another.
    for bound in ("estimate", "low", "high"):
        here = found.sel(bound=bound, ablated=known)
        np.testing.assert_allclose(here["response_share"].sel(part=PARTS[1:]), SHARES[:2], atol=1e-9)
        np.testing.assert_allclose(here["restored_share"].sel(part=PARTS[1:]), RESTORED[:2], atol=1e-9)
        np.testing.assert_allclose(here["response_share"].sel(part="sublayer"), 1)
    np.testing.assert_allclose(estimate["response_share"].sel(ablated=known, part=PARTS[1:]).sum("part"), 1)


def test_a_share_of_what_may_be_0_is_unknown() -> None:
    found = feature_shares(made(), bootstrap=FEW)
    for name in ("response_share", "restored_share"):
        assert np.isnan(found[name].sel(ablated="mlp.0")).all()
        assert np.isfinite(found[name].sel(ablated=ABLATED[:2])).all()
    assert np.isfinite(found["response"]).all()
    # Each share by its own sublayer's mean: here only what is restored may be 0.
    data = made()
    data["restored_by"][:, ::2, 0] *= -1
    mixed = feature_shares(data, bootstrap=FEW).sel(ablated="attn.0")
    assert np.isfinite(mixed["response_share"]).all()
    assert np.isnan(mixed["restored_share"]).all()


def test_of_a_single_prompt_no_share_is_sure() -> None:
    found = feature_shares(made(1), bootstrap=FEW)
    assert np.isfinite(found["response"].sel(bound="estimate")).all()
    assert np.isnan(found["response_share"]).all()


def test_of_a_sublayer_that_never_responds_no_share_is_known() -> None:
    data = made()
    data["response"][:] = 0
    assert np.isnan(feature_shares(data, bootstrap=FEW)["response_share"]).all()


def test_bounds_hold_the_estimate_and_all_means_at_once() -> None:
    generator, data = np.random.default_rng(1), made()
    for name in ("response", "restored_by"):
        data[name] = data[name] + generator.normal(0, 0.3, data[name].shape)
    found = feature_shares(data, bootstrap=FEW)
    for name in found.data_vars:
        estimate, low, high = (
            found[name].sel(bound=bound, ablated=ABLATED[:2]) for bound in ("estimate", "low", "high")
        )
        assert (low <= estimate).all()
        assert (estimate <= high).all()
    share, response = found["response_share"].sel(part="features"), data["response"].sel(readout="logit")
    assert float((share.sel(bound="high") - share.sel(bound="low")).sel(ablated="attn.0")) > 0.01
    alone = mean_interval(response, FEW)
    width = found["response"].sel(bound="high") - found["response"].sel(bound="low")
    assert (width > alone.sel(bound="high") - alone.sel(bound="low")).all()
    # The interval of a share by its definition, resample by resample.
    drawn = np.random.default_rng(FEW.seed).integers(40, size=(FEW.resamples, 40))
    means = response.sel(ablated="attn.0").values[drawn].mean(1)
    ratios = means[:, 1] / means[:, 0]
    tail = FEW.tail(40)
    for bound, at in (("low", tail), ("high", 1 - tail)):
        assert float(share.sel(ablated="attn.0", bound=bound)) == pytest.approx(np.quantile(ratios, at))


def test_other_results_are_refused() -> None:
    with pytest.raises(HydrascopeError, match=r"no result of hydrascope\.analyses\.features: give one"):
        feature_shares(made().drop_vars("feature_response"))
    with pytest.raises(HydrascopeError, match="there is no readout 'taste'"):
        feature_shares(made(), "taste")
