"""Averaging patches: the same numbers as plain loops, read once, nothing lost."""

from pathlib import Path

import numpy as np
import pytest
import synthetic
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from hydrascope.errors import HydrascopeError
from hydrascope.measures import (
    average_patches,
    change,
    direct_effect,
    effects,
    kinds,
    layers,
    of_kind,
    removed_effect,
    require_complete,
)


@given(prompts=st.integers(1, 7), patches=st.integers(1, 4), block=st.integers(1, 20_000))
@settings(max_examples=20, deadline=None)
def test_average_is_the_plain_mean_whatever_the_block(prompts: int, patches: int, block: int) -> None:
    results = synthetic.results(2, prompts, patches)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(effects, "_BLOCK", block)
        averaged = average_patches(results)
    for name in ("unembed_ablated", "total", "direct", "indirect", "norm"):
        plain = results[name].values.astype(np.float64).mean(axis=2)
        np.testing.assert_allclose(averaged[name].values, plain, rtol=1e-12)
        assert averaged[name].dtype == np.float64
    assert averaged.attrs == results.attrs
    assert list(averaged["text"].values) == list(results["text"].values)


def test_averaged_results_are_left_as_they_are() -> None:
    averaged = average_patches(synthetic.results(2, 3, 2))
    assert average_patches(averaged) is averaged


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_a_stored_result_is_averaged_without_loading_it_whole(
    tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = synthetic.results(3, 5, 4)
    encoding = {"unembed_ablated": {"chunks": (chunk, 6, 4, 6)}}
    results.to_zarr(tmp_path / "r.zarr", encoding=encoding)
    stored = xr.open_zarr(tmp_path / "r.zarr", chunks=None)
    read: list[int] = []
    monkeypatch.setattr(effects, "_BLOCK", results["unembed_ablated"].nbytes // 2)
    original = xr.DataArray.mean

    def spy(array: xr.DataArray, *args: object, **kwargs: object) -> xr.DataArray:
        if array.name == "unembed_ablated":
            read.append(array.sizes["prompt"])
        return original(array, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(xr.DataArray, "mean", spy)
    xr.testing.assert_identical(
        average_patches(stored).drop_attrs(deep=False), average_patches(results).drop_attrs(deep=False)
    )
    first = read[: len(read) // 2]
    assert max(first) < 5 or chunk == 5
    assert all(size % chunk == 0 for size in first[:-1])
    assert not stored["unembed_ablated"]._in_memory


def test_nan_in_one_patch_is_kept() -> None:
    results = synthetic.results(2, 4, 3)
    results["total"][2, 1, 0] = np.nan
    averaged = average_patches(results)
    assert np.isnan(averaged["total"]).sum() == 1
    assert np.isnan(averaged["total"][2, 1])
    with pytest.raises(HydrascopeError, match=r"1 of 4 prompts have values of 'total'"):
        require_complete(averaged)


def test_infinity_is_no_number_either() -> None:
    results = synthetic.results(2, 4, 3)
    results["unembed"][1, 1] = np.inf
    with pytest.raises(HydrascopeError, match="1 of 4 prompts"):
        require_complete(average_patches(results))


def test_complete_results_pass() -> None:
    require_complete(average_patches(synthetic.results(2, 3, 1)))


def test_what_is_no_result_is_refused() -> None:
    with pytest.raises(HydrascopeError, match="no variable 'unembed'"):
        average_patches(xr.Dataset({"temperature": ("x", [1.0])}))
    with pytest.raises(HydrascopeError, match="no measurements"):
        average_patches(synthetic.results(2, 3, 1).isel(prompt=slice(0)))
    results = synthetic.results(2, 3, 1)
    renamed = results.assign_coords(ablated=["attn.0", "mlp.0", "attn.1", "mlp.9"])
    with pytest.raises(HydrascopeError, match=r"ablates mlp\.9"):
        average_patches(renamed)


def test_components_are_told_apart_and_put_in_order_of_depth() -> None:
    array = xr.DataArray(
        range(5), dims="ablated", coords={"ablated": ["attn.10", "mlp.0", "attn.2", "mlp.10", "attn.0"]}
    )
    assert kinds(array["ablated"]) == ["attn", "mlp", "attn", "mlp", "attn"]
    assert layers(array["ablated"]) == [10, 0, 2, 10, 0]
    assert list(of_kind(array, "ablated", "attn")["ablated"].values) == ["attn.0", "attn.2", "attn.10"]
    assert of_kind(array[:1], "ablated", "mlp").sizes["ablated"] == 0


@given(ablated=st.lists(st.sampled_from(synthetic.labels(3)), min_size=1, unique=True))
@settings(max_examples=20, deadline=None)
def test_effects_of_a_layer_are_looked_up_by_label(ablated: list[str]) -> None:
    results = synthetic.results(3, 4, 2, ablated=ablated)
    direct, removed, moved = direct_effect(results), removed_effect(results), change(results)
    for prompt in range(4):
        for a, label in enumerate(ablated):
            own = synthetic.labels(3).index(label)
            clean = float(results["unembed"][prompt, own])
            assert direct[prompt, a] == clean
            patched = [float(results["unembed_ablated"][prompt, a, patch, own]) for patch in range(2)]
            np.testing.assert_allclose(removed[prompt, a], clean - np.mean(patched), rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(moved[prompt, a, own], -removed[prompt, a], rtol=1e-12)
