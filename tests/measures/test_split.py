"""The split's measures by plain formulas, and the truths of the phantom."""

import numpy as np
import pytest
import xarray as xr
from plain import loaded

import hydrascope as hs
from hydrascope.measures import BOOST, Bootstrap, Part, per_prompt, restoration, select_part, split
from hydrascope.utils.errors import HydrascopeError

FEW = Bootstrap(resamples=50)
TEXTS = ["the cat", "no", "Hello, world", "a", "xyz.", "QRS tuv", "b", "ab"]


@pytest.fixture(scope="module")
def results() -> xr.Dataset:
    readouts = [hs.Logit(), hs.Direction(np.arange(32.0), name="up")]
    experiment = hs.Split("layers,head.1.0", doses=(-1, 2))
    return hs.sweep(loaded("gpt2"), TEXTS, hs.Resample(patches=2), ablate=experiment, readouts=readouts)


@pytest.mark.parametrize("readout", ["logit", "up"])
def test_by_plain_formulas(results: xr.Dataset, readout: str) -> None:
    found = split(results, readout, FEW)
    means = results.sel(readout=readout).mean("patch")
    assert list(found["ablated"].values) == ["attn.0", "mlp.0", "attn.1", "mlp.1", "attn.2", "mlp.2", "head.1.0"]
    for label in map(str, found["ablated"].values):
        here = found.sel(ablated=label, bound="estimate")

        def of(part: str, label: str = label) -> tuple[np.ndarray, np.ndarray]:
            row = means.sel(ablated=label + part)
            return row["total"].values, row["direct"].values

        total, direct = of("")
        along_total, along_direct = of(f":readout({readout})")
        content_total, content_direct = of(f":content({readout})")
        boost_total, boost_direct = of(":boost")
        response, opposite = total - direct, boost_total - boost_direct
        damping = 1 - (along_total * along_direct).sum() / (along_direct**2).sum()
        content = np.polyfit(-direct, content_total - content_direct, 1)[0]
        even, odd = (response + opposite) / 2, (response - opposite) / 2
        if label == "mlp.2":  # nothing is downstream of it
            assert abs(damping) < 0.5
        expected = {
            "damping": damping,
            "content_repair": content,
            "content_share": content / (content + damping),
            "restored_slope": np.polyfit(-direct, response, 1)[0],
            "readout_slope": np.polyfit(-along_direct, along_total - along_direct, 1)[0],
            "boost_slope": np.polyfit(-boost_direct, opposite, 1)[0],
            "one_sided": (even**2).sum() / (even**2 + odd**2).sum(),
        }
        if label == "mlp.2":
            del expected["one_sided"], expected["content_share"]  # its responses are rounding
        for name, value in expected.items():
            np.testing.assert_allclose(here[name], value, rtol=1e-5, atol=1e-9, err_msg=f"{label} {name}")


def test_bounds_hold_the_estimate_and_cover_all_ablations_at_once(results: xr.Dataset) -> None:
    found = split(results, bootstrap=FEW)
    for name in ("damping", "content_repair", "restored_slope"):
        estimate, low, high = found[name].values
        assert (low <= estimate).all()
        assert (estimate <= high).all()
    alone = split(results.sel(ablated=[each for each in results["ablated"].values if "attn.0" in str(each)]), None, FEW)
    wide, narrow = (np.ptp(each["damping"].sel(ablated="attn.0").values) for each in (found, alone))
    assert wide > narrow


def test_on_the_phantom_repair_is_by_content() -> None:
    """Its backup watches what attn.3 writes, not the logit: 0.80 comes back of all, nothing of the readout part."""
    run = hs.sweep(hs.load_model("phantom"), hs.load_prompts("phantom").limit(60), hs.Zero(), ablate=hs.Split("attn"))
    found = split(run, bootstrap=FEW).sel(ablated="attn.3", bound="estimate")
    assert found["restored_slope"] == pytest.approx(0.80, abs=0.03)
    assert found["content_repair"] == pytest.approx(0.80, abs=0.03)
    assert found["damping"] == pytest.approx(0, abs=1e-3)
    assert found["content_share"] == pytest.approx(1, abs=1e-3)
    quiet = split(run, bootstrap=FEW).sel(ablated="attn.2")
    assert np.isnan(quiet["damping"]).all()
    assert np.isnan(quiet["one_sided"]).all()


def test_a_part_reads_like_a_sweep(results: xr.Dataset) -> None:
    boost = select_part(results, BOOST)
    assert list(boost["ablated"].values) == ["attn.0", "mlp.0", "attn.1", "mlp.1", "attn.2", "mlp.2", "head.1.0"]
    assert list(boost["ablated_kind"].values) == ["attn", "mlp"] * 3 + ["head"]
    assert int(boost["ablated_unit"][-1]) == 0
    np.testing.assert_array_equal(
        boost["total"].sel(ablated="head.1.0"), results["total"].sel(ablated="head.1.0:boost")
    )
    slope = restoration(per_prompt(boost), FEW)["restored_slope"].sel(bound="estimate")
    np.testing.assert_allclose(slope, split(results, bootstrap=FEW)["boost_slope"].sel(bound="estimate"), rtol=1e-9)
    assert len(select_part(results, Part("dose", dose=2))["ablated"]) == 7


def test_what_is_not_there_is_named(results: xr.Dataset) -> None:
    with pytest.raises(HydrascopeError, match=r"the result holds no dose\(3\): it holds readout\(logit\), content"):
        select_part(results, Part("dose", dose=3))
    plain = hs.sweep(loaded("gpt2"), TEXTS[:2], hs.Zero(), ablate="attn.0")
    with pytest.raises(HydrascopeError, match="no results of split: measure with hydrascope run --split, or Split"):
        split(plain)
    without = hs.sweep(loaded("gpt2"), TEXTS[:3], hs.Zero(), ablate=hs.Split("attn.0", doses=()))
    assert np.isnan(split(without, bootstrap=FEW)["one_sided"]).all()
