"""What is written is read again to the bit; what is damaged, foreign or unfinished is said to be so."""

import errno
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import LocalStore

from hydrascope import store
from hydrascope.errors import HydrascopeError
from hydrascope.variables import FORMAT, KNOWN, MEASURED, described

TEXT = np.dtypes.StringDType()
LABELS = ["attn.0", "mlp.0", "attn.1", "mlp.1"]
DIMS = {name: variable.dims for name, variable in MEASURED.items()}


def sizes(prompts: int, patches: int) -> dict[str, int]:
    return {"readout": 2, "metric": 1, "prompt": prompts, "ablated": 4, "patch": patches, "component": 4}


def known(prompts: int) -> xr.Dataset:
    """Every variable and coordinate that is known before anything is measured."""
    kinds, layers = np.array(["attn", "mlp"] * 2, TEXT), np.array([0, 0, 1, 1])
    return xr.Dataset(
        {
            "target": ("prompt", np.arange(prompts)),
            "downstream": (("ablated", "component"), np.triu(np.ones((4, 4), bool), 1)),
        },
        {
            "ablated": np.array(LABELS, TEXT),
            "component": np.array(LABELS, TEXT),
            **{f"{dim}_kind": (dim, kinds) for dim in ("ablated", "component")},
            **{f"{dim}_layer": (dim, layers) for dim in ("ablated", "component")},
            **{f"{dim}_unit": (dim, np.full(4, -1)) for dim in ("ablated", "component")},
            "readout": np.array(["logit", "naïve"], TEXT),
            "readout_before": ("readout", np.array([-1, 1])),
            "metric": np.array(["kl"], TEXT),
            "metric_units": ("metric", np.array(["nats"], TEXT)),
            "text": ("prompt", np.array([f"naïve\0 {i}" for i in range(prompts)], TEXT)),
            "target_text": ("prompt", np.array([" x\0"] * prompts, TEXT)),
        },
        {"model": "toy", "seed": 0, "units": "logits", "prompt_count": prompts},
    )


def measured(prompts: int, patches: int, dtype: str, seed: int = 0) -> xr.Dataset:
    random, size = np.random.default_rng(seed), sizes(prompts, patches)
    variables = {
        name: (dims, random.normal(size=[size[dim] for dim in dims]).astype(dtype)) for name, dims in DIMS.items()
    }
    return xr.Dataset(variables | {"patch_prompt": (("prompt", "patch"), np.full((prompts, patches), -1))})


def create(
    path: Path, prompts: int = 7, patches: int = 2, dtype: str = "float32", block: int = 3, **options: Any
) -> None:
    empty = {name: (dims, "int64" if name == "patch_prompt" else dtype) for name, dims in DIMS.items()}
    store.create(path, known(prompts), empty, sizes(prompts, patches), block, **options)


def stored(path: Path, prompts: int = 7, patches: int = 2, dtype: str = "float32", block: int = 3) -> xr.Dataset:
    """A whole result at `path`, and what must be read from it."""
    everything = measured(prompts, patches, dtype)
    create(path, prompts, patches, dtype, block)
    for start in range(0, prompts, block):
        store.write(path, start, everything.isel(prompt=slice(start, start + block)), {"worst_imbalance": 0.5})
    whole = described(known(prompts).merge(everything), "logits")
    return whole.assign_attrs(known(prompts).attrs, format=FORMAT, measured=prompts, worst_imbalance=0.5)


@settings(deadline=None, max_examples=6)
@given(st.integers(1, 9), st.integers(1, 3), st.integers(1, 5), st.sampled_from(["float32", "float64"]))
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, prompts: int, patches: int, block: int, dtype: str
) -> None:
    path = tmp_path_factory.mktemp("store") / "deep" / "results.zarr"
    expected = stored(path, prompts, patches, dtype, block)
    read = store.open_results(path)
    xr.testing.assert_identical(read.load(), expected)
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
    assert set(opened.coords) == set(KNOWN) - {"target", "downstream"}
    assert opened.sel(ablated="mlp.0", component="attn.1")["downstream"]


def test_everything_says_what_it_is_in_which_unit(tmp_path: Path) -> None:
    stored(tmp_path / "r.zarr")
    for opened in (xr.open_zarr(tmp_path / "r.zarr"), store.open_results(tmp_path / "r.zarr")):
        assert set(opened.variables) == set(MEASURED) | set(KNOWN)
        for name, variable in opened.variables.items():
            assert variable.attrs.keys() == {"long_name", "units"}, name
            assert all(variable.attrs.values()), name
    assert opened["total"].attrs["units"] == "logits"
    assert set(opened.attrs) == {*known(1).attrs, "format", "measured", "worst_imbalance"}


def test_only_what_is_looked_at_is_read(tmp_path: Path) -> None:
    """A damaged chunk of one variable is named when that is read; the others are as they were."""
    expected = stored(tmp_path / "r.zarr")
    chunk(tmp_path / "r.zarr", "total").write_bytes(b"damaged")
    opened = store.open_results(tmp_path / "r.zarr")
    for name in set(expected.variables) - {"total"}:
        xr.testing.assert_identical(opened[name].load(), expected[name])
    # A chunk is a block of prompts: those of the others can be read.
    xr.testing.assert_identical(opened["total"].isel(prompt=slice(3, 7)).load(), expected["total"][:, 3:])
    with pytest.raises(HydrascopeError, match=r"r\.zarr is damaged, total cannot be read .*: measure again") as caught:
        opened["total"].mean().load()
    assert "\n" not in str(caught.value)


def test_reading_is_as_lazy_as_it_is_sparing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a slice, only the chunks that hold it are read."""
    expected, read = stored(tmp_path / "r.zarr"), []
    get = LocalStore.get

    async def noted(self: LocalStore, key: str, *arguments: Any, **options: Any) -> Any:
        read.append(key)
        return await get(self, key, *arguments, **options)

    monkeypatch.setattr(LocalStore, "get", noted)
    opened = store.open_results(tmp_path / "r.zarr")
    assert not {key.split("/c/")[0] for key in read if "/c/" in key} & set(MEASURED)
    xr.testing.assert_identical(opened["unembed"].isel(prompt=4).load(), expected["unembed"].isel(prompt=4))
    assert [key for key in read if key.split("/")[0] in MEASURED and "/c/" in key] == ["unembed/c/0/1/0"]


def chunk(path: Path, name: str) -> Path:
    """The first chunk of a variable."""
    return sorted(file for file in (path / name / "c").rglob("*") if file.is_file())[0]


def test_nothing_in_it_is_a_pickle(tmp_path: Path) -> None:
    stored(tmp_path / "r.zarr")
    for file in (tmp_path / "r.zarr").rglob("zarr.json"):
        assert "pickle" not in file.read_text()


def test_an_interrupted_run_gives_what_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    everything = measured(7, 2, "float32")
    create(path)
    with pytest.raises(HydrascopeError, match=r"nothing of .* is measured yet"):
        store.open_results(path)
    store.write(path, 0, everything.isel(prompt=slice(3)), {})
    read = store.open_results(path)
    assert read.attrs["measured"] == read.sizes["prompt"] == 3
    xr.testing.assert_equal(read[list(MEASURED)].drop_vars(read.coords).load(), everything.isel(prompt=slice(3)))
    # A block of which only a part was written doesn't count,
    shutil.copytree(path / "total/c/0/0", path / "total/c/0/1")
    xr.testing.assert_identical(store.open_results(path), read)
    # and doesn't stand in for what is missing.
    shutil.rmtree(path / "total/c/0/0")
    with pytest.raises(HydrascopeError, match=r"is damaged, total cannot be read \(a chunk is missing\)"):
        store.open_results(path)


@pytest.mark.parametrize("name", ["unembed_ablated", "patch_prompt", "imbalance", "text", "downstream", "ablated"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "delete", "metadata"])
def test_damage_is_named(tmp_path: Path, name: str, damage: str) -> None:
    path = tmp_path / "r.zarr"
    stored(path)
    first = chunk(path, name)
    content = first.read_bytes()
    if damage == "truncate":
        first.write_bytes(content[:-5])
    elif damage == "flip":
        first.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    elif damage == "empty":
        first.write_bytes(b"")
    elif damage == "delete":
        first.unlink()
    else:
        (path / name / "zarr.json").write_text("{")
    if damage in ("delete", "metadata") or name in KNOWN:
        # Known at once; what else is damaged in what is measured is found when it is looked at.
        with pytest.raises(HydrascopeError, match="is damaged"):
            store.open_results(path)
    with pytest.raises(HydrascopeError, match=f"is damaged, {name} cannot|is damaged, its list of variables") as caught:
        store.open_results(path).load()
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
            create(tmp_path / name)
    assert (tmp_path / "folder" / "precious").read_text() == "precious"


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("hydrascope results 1", "holds a result of format 1, which is no longer read: measure again"),
        (3, "holds format 3, and this hydrascope reads 2: use a newer one"),
    ],
)
def test_another_format_is_refused(tmp_path: Path, version: Any, message: str) -> None:
    path = tmp_path / "r.zarr"
    stored(path)
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"]["format"] = version
    (path / "zarr.json").write_text(json.dumps(root))
    for use in (store.open_results, store.read_attributes):
        with pytest.raises(HydrascopeError, match=message) as caught:
            use(path)
        assert "\n" not in str(caught.value)


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
            create(path, overwrite=True)
    xr.testing.assert_identical(store.open_results(path), expected)
    assert list(tmp_path.iterdir()) == [path]
    create(path, overwrite=True)
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
    create(path)
    store.write(path, 0, everything.isel(prompt=slice(3)), {})
    before = store.open_results(path)

    async def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("zarr.storage.LocalStore.set", full)
        with pytest.raises(HydrascopeError, match=r"No space left on device\); 3 prompts are kept"):
            store.write(path, 3, everything.isel(prompt=slice(3, 6)), {})
        with pytest.raises(HydrascopeError, match=r"cannot create .*No space left on device"):
            create(tmp_path / "other.zarr")
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
