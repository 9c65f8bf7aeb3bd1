"""Effects of ablated components: looked up by label, complete or refused, and told apart by their coordinates."""

import numpy as np
import pytest
import synthetic
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from hydrascope.measures import (
    block_numbers,
    change,
    compensation,
    direct_effect,
    kinds,
    of_kind,
    own_change,
    per_prompt,
    require_complete,
    strength,
    unit_numbers,
)
from hydrascope.utils.errors import HydrascopeError


@given(ablated=st.lists(st.sampled_from(synthetic.labels(3)), min_size=1, unique=True))
@settings(max_examples=10, deadline=None)
def test_effects_of_a_sublayer_are_looked_up_by_label(ablated: list[str]) -> None:
    results = synthetic.results(3, 4, 2, ablated=ablated)
    effects = per_prompt(results)
    direct, own, moved = direct_effect(effects), own_change(effects), change(effects)
    for prompt in range(4):
        for a, label in enumerate(ablated):
            k = synthetic.labels(3).index(label)
            clean = float(results["unembed"][0, prompt, k])
            assert direct[prompt, a] == clean
            patched = float(results["unembed_ablated"][0, prompt, a, k])
            np.testing.assert_allclose(own[prompt, a], patched - clean, rtol=1e-12)
            np.testing.assert_allclose(moved[prompt, a, k], own[prompt, a], rtol=1e-12)


def test_effects_of_heads_and_of_joint_ablations() -> None:
    runs = ["head.1.0", "attn.0+mlp.2", "attn.1|mlp.1", "head.1.0+head.1.1"]
    results = synthetic.results(3, 4, 2, heads=2, ablated=runs)
    effects = per_prompt(results)
    unembed = results["unembed"].isel(readout=0).astype(np.float64)
    for a, parts in enumerate((["head.1.0"], ["attn.0", "mlp.2"], ["attn.1"], ["head.1.0", "head.1.1"])):
        expected = sum(unembed.sel(component=part).values for part in parts)
        np.testing.assert_array_equal(direct_effect(effects)[:, a], expected)
    own, moved = own_change(effects), change(effects)
    np.testing.assert_allclose(own[:, 0], moved[:, 0].sel(component="attn.1"))
    np.testing.assert_allclose(own[:, 1], moved[:, 1].sel(component=["attn.0", "mlp.2"]).sum("component"))
    np.testing.assert_allclose(own[:, 2], moved[:, 2].sel(component="attn.1"))


def test_a_component_that_was_not_read_has_no_direct_effect() -> None:
    results = synthetic.results(2, 4, 2, heads=2, read_heads=False, ablated=["attn.0", "head.1.1", "head.0.0+mlp.1"])
    effects = per_prompt(results)
    with pytest.raises(HydrascopeError, match=r"direct effect of head\.1\.1 is unknown.*read it"):
        direct_effect(effects)
    assert effects["ablated_read"].values.tolist() == [True, False, False]
    require_complete(effects)
    assert direct_effect(effects.isel(ablated=[0])).notnull().all()
    chosen = strength(effects)
    np.testing.assert_array_equal(chosen[:, 0], effects["contribution"][:, 0])
    np.testing.assert_array_equal(chosen[:, 1:], -effects["direct"][:, 1:])


def test_heads_of_several_sublayers_have_no_change_of_their_own() -> None:
    results = synthetic.results(3, 4, 2, heads=2, ablated=["head.0.0+head.1.0", "head.0.0+head.0.1", "attn.0+mlp.0"])
    effects = per_prompt(results)
    for values in (own_change(effects), compensation(effects)["compensation"]):
        assert values.isnull().all("prompt").values.tolist() == [True, False, False]


def test_nan_in_one_patch_is_kept() -> None:
    results = synthetic.results(2, 4, 3)
    results["total"][0, 2, 1, 0] = np.nan
    effects = per_prompt(results)
    assert np.isnan(effects["total"]).sum() == 1
    assert np.isnan(effects["total"][2, 1])
    with pytest.raises(HydrascopeError, match=r"1 of 4 prompts have values of 'total'"):
        require_complete(effects)


@pytest.mark.parametrize("name", ["unembed", "unembed_ablated", "unembed_ablated_own", "embed", "scale", "indirect"])
def test_infinity_is_no_number_either(name: str) -> None:
    results = synthetic.results(2, 4, 3)
    results[name].isel(prompt=1)[:] = np.inf
    with pytest.raises(HydrascopeError, match="1 of 4 prompts"):
        require_complete(per_prompt(results))


def test_what_heads_add_must_be_numbers_too() -> None:
    results = synthetic.results(2, 4, 3, heads=2)
    results["unembed"].loc[{"component": "head.1.1"}] = np.nan
    with pytest.raises(HydrascopeError, match="4 of 4 prompts have values of 'unembed'"):
        require_complete(per_prompt(results))


def test_complete_results_pass() -> None:
    require_complete(per_prompt(synthetic.results(2, 3, 1)))


def test_components_are_told_apart_and_put_in_order_of_depth() -> None:
    names = ["attn.10", "mlp.0", "head.2.1", "attn.2", "mlp.10", "attn.0+mlp.1", "head.2.0", "attn.0", "neuron.5.1203"]
    array = xr.DataArray(range(9), dims="ablated", coords=synthetic.coordinates("ablated", names))
    assert kinds(array["ablated"]) == ["attn", "mlp", "head", "attn", "mlp", "joint", "head", "attn", "neuron"]
    assert block_numbers(array["ablated"]) == [10, 0, 2, 2, 10, 0, 2, 0, 5]
    assert unit_numbers(array["ablated"]) == [-1, -1, 1, -1, -1, -1, 0, -1, 1203]
    assert list(of_kind(array, "ablated", "attn")["ablated"].values) == ["attn.0", "attn.2", "attn.10"]
    assert list(of_kind(array, "ablated", "head")["ablated"].values) == ["head.2.0", "head.2.1"]
    assert list(of_kind(array, "ablated", "head", "neuron")["ablated"].values)[-1] == "neuron.5.1203"
    assert of_kind(array[:1], "ablated", "mlp").sizes["ablated"] == 0
