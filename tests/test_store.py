"""What is written is read again to the bit; what is damaged, foreign or unfinished is said to be so."""

import errno
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from hydrascope import store
from hydrascope.errors import HydrascopeError

TEXT = np.dtypes.StringDType()
LABELS = ["attn.0", "mlp.0", "attn.1", "mlp.1"]


def known(prompts: int) -> xr.Dataset:
    return xr.Dataset(
        {
            "target": ("prompt", np.arange(prompts)),
            "downstream": (("ablated", "component"), np.triu(np.ones((4, 4), bool), 1)),
        },
        {
            "ablated": np.array(LABELS, TEXT),
            "component": np.array(LABELS, TEXT),
            "text": ("prompt", np.array([f"naïve\0 {i}" for i in range(prompts)], TEXT)),
            "target_text": ("prompt", np.array([" x\0"] * prompts, TEXT)),
        },
        {"model": "toy", "seed": 0, "norm": "clean"},
    )


def measured(prompts: int, patches: int, dtype: str, seed: int = 0) -> xr.Dataset:
    sizes = {"prompt": prompts, "ablated": 4, "patch": patches, "component": 4}
    random = np.random.default_rng(seed)
    variables = {
        name: (dims, random.normal(size=[sizes[dim] for dim in dims]).astype(dtype))
        for name, dims in store.MEASURED.items()
    }
    return xr.Dataset(variables | {"patch_prompt": (("prompt", "patch"), np.full((prompts, patches), -1))})


def stored(path: Path, prompts: int = 7, patches: int = 2, dtype: str = "float32", block: int = 3) -> xr.Dataset:
    """A whole result at `path`, and what must be read from it."""
    everything = measured(prompts, patches, dtype)
    store.create(path, known(prompts), patches, dtype, block)
    for start in range(0, prompts, block):
        store.write(path, start, everything.isel(prompt=slice(start, start + block)), {"worst_imbalance": 0.5})
    return (
        known(prompts)
        .merge(everything)
        .assign_attrs(known(prompts).attrs, format=store.FORMAT, measured=prompts, worst_imbalance=0.5)
    )


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 9), st.integers(1, 3), st.integers(1, 5), st.sampled_from(["float32", "float64"]))
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, prompts: int, patches: int, block: int, dtype: str
) -> None:
    path = tmp_path_factory.mktemp("store") / "deep" / "results.zarr"
    expected = stored(path, prompts, patches, dtype, block)
    read = store.open_results(path)
    xr.testing.assert_identical(read, expected)
    assert {name: array.dtype for name, array in read.variables.items()} == {
        name: array.dtype for name, array in expected.variables.items()
    }
    assert [file.name for file in path.parent.iterdir()] == ["results.zarr"]


def test_xarray_opens_it_without_a_word(tmp_path: Path) -> None:
    expected = stored(tmp_path / "r.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = xr.open_zarr(tmp_path / "r.zarr").load()
    xr.testing.assert_identical(opened, expected)
    assert set(opened.coords) == {"ablated", "component", "text", "target_text"}
    assert opened.sel(ablated="mlp.0", component="attn.1")["downstream"]


def test_nothing_in_it_is_a_pickle(tmp_path: Path) -> None:
    stored(tmp_path / "r.zarr")
    for file in (tmp_path / "r.zarr").rglob("zarr.json"):
        assert "pickle" not in file.read_text()


def test_an_interrupted_run_gives_what_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    everything = measured(7, 2, "float32")
    store.create(path, known(7), 2, "float32", 3)
    with pytest.raises(HydrascopeError, match=r"nothing of .* is measured yet"):
        store.open_results(path)
    store.write(path, 0, everything.isel(prompt=slice(3)), {})
    read = store.open_results(path)
    assert read.attrs["measured"] == read.sizes["prompt"] == 3
    xr.testing.assert_equal(read[list(store.MEASURED)].drop_vars(read.coords), everything.isel(prompt=slice(3)))
    # A block of which only a part was written doesn't count.
    shutil.copytree(path / "total/c/0", path / "total/c/1")
    xr.testing.assert_identical(store.open_results(path), read)


@pytest.mark.parametrize("name", ["unembed_ablated", "patch_prompt", "imbalance", "text", "downstream", "ablated"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "delete", "metadata"])
def test_damage_is_named(tmp_path: Path, name: str, damage: str) -> None:
    path = tmp_path / "r.zarr"
    stored(path)
    chunk = sorted(file for file in (path / name / "c").rglob("*") if file.is_file())[0]
    content = chunk.read_bytes()
    if damage == "truncate":
        chunk.write_bytes(content[:-5])
    elif damage == "flip":
        chunk.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    elif damage == "empty":
        chunk.write_bytes(b"")
    elif damage == "delete":
        chunk.unlink()
    else:
        (path / name / "zarr.json").write_text("{")
    with pytest.raises(HydrascopeError, match=f"is damaged, .*{name}|is damaged, zarr.json") as caught:
        store.open_results(path)
    assert "\n" not in str(caught.value)


def test_what_is_no_result_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(HydrascopeError, match="there is no"):
        store.open_results(tmp_path / "none.zarr")
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious").write_text("precious")
    xr.Dataset({"a": 1}).to_zarr(tmp_path / "other.zarr", zarr_format=3, consolidated=False)
    for name in ("file", "folder", "other.zarr"):
        for use in (store.open_results, store.remove):
            with pytest.raises(HydrascopeError, match="is no hydrascope result"):
                use(tmp_path / name)
        assert (tmp_path / name).exists()
        with pytest.raises(HydrascopeError, match="exists"):
            store.create(tmp_path / name, known(2), 1, "float32", 2)
    assert (tmp_path / "folder" / "precious").read_text() == "precious"


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    stored(path)
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"]["format"] = "hydrascope results 2"
    (path / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(HydrascopeError, match="holds 'hydrascope results 2'"):
        store.open_results(path)


def test_a_result_can_be_removed_and_made_again(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    stored(path)
    (tmp_path / "link").symlink_to(path)
    store.remove(tmp_path / "link")
    assert not path.exists()
    stored(path)


def test_an_overwrite_that_fails_keeps_the_old_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.zarr"
    expected = stored(path)

    async def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("zarr.storage.LocalStore.set", full)
        with pytest.raises(HydrascopeError, match="No space left on device"):
            store.create(path, known(7), 2, "float32", 3, overwrite=True)
    xr.testing.assert_identical(store.open_results(path), expected)
    assert list(tmp_path.iterdir()) == [path]
    store.create(path, known(7), 2, "float32", 3, overwrite=True)
    assert store.read_attributes(path)["measured"] == 0


def test_what_a_killed_run_left_beside_is_cleared(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    (tmp_path / ".r.zarr.partial").mkdir()
    (tmp_path / ".r.zarr.removed").mkdir()
    stored(path)
    store.remove(path)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_what_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.zarr"
    everything = measured(7, 2, "float32")
    store.create(path, known(7), 2, "float32", 3)
    store.write(path, 0, everything.isel(prompt=slice(3)), {})
    before = store.open_results(path)

    async def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("zarr.storage.LocalStore.set", full)
        with pytest.raises(HydrascopeError, match=r"No space left on device\); 3 prompts are kept"):
            store.write(path, 3, everything.isel(prompt=slice(3, 6)), {})
        with pytest.raises(HydrascopeError, match=r"cannot create .*No space left on device"):
            store.create(tmp_path / "other.zarr", known(7), 2, "float32", 3)
    xr.testing.assert_identical(store.open_results(path), before)

    def no_room(self: Path, *arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", no_room)
        with pytest.raises(HydrascopeError, match=r"3 prompts are kept"):
            store.write(path, 3, everything.isel(prompt=slice(3, 6)), {})
    assert [file.name for file in tmp_path.iterdir()] == ["r.zarr"]
    xr.testing.assert_identical(store.open_results(path), before)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.write(path, 3, everything.isel(prompt=slice(3, 6)), {})
    assert store.open_results(path).sizes["prompt"] == 6
