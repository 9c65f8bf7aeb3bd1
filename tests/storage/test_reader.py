"""What is written is read again to the bit; what is damaged, foreign or unfinished is said to be so."""

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import LABELS, create, create_for, known, measured, stored, write
from zarr.storage import LocalStore

from hydrascope.storage import reader
from hydrascope.storage.schema import MEASURED_VARIABLES, STATIC_VARIABLES
from hydrascope.utils.errors import HydrascopeError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole result, which is left as it is."""
    path = tmp_path_factory.mktemp("whole") / "r.zarr"
    stored(path)
    return path


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "r.zarr"))


@settings(deadline=None, max_examples=4)
@given(st.integers(1, 9), st.integers(1, 3), st.integers(1, 5), st.sampled_from(["float32", "float64"]))
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, prompts: int, patches: int, block: int, dtype: str
) -> None:
    path = tmp_path_factory.mktemp("store") / "deep" / "results.zarr"
    expected = stored(path, prompts, patches, dtype, block)
    read = reader.open_results(path)
    xr.testing.assert_identical(read.load(), expected)
    assert {name: array.dtype for name, array in read.variables.items()} == {
        name: array.dtype for name, array in expected.variables.items()
    }
    assert [file.name for file in path.parent.iterdir()] == ["results.zarr"]


REPLACED = r"another run replaced .*r\.zarr while it was read: open it again"


@pytest.mark.parametrize("step", ["known_files", "_measured_files"])
def test_a_result_that_is_replaced_while_it_is_opened_is_not_called_damaged(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    read_files = getattr(reader, step)

    def late(path: Path, attributes: dict[str, Any]) -> Any:
        create(path, overwrite=True).close()
        return read_files(path, attributes)

    monkeypatch.setattr(reader, step, late)
    with pytest.raises(HydrascopeError, match=REPLACED):
        reader.open_results(path)


def test_a_variable_of_a_replaced_result_is_not_called_damaged(path: Path) -> None:
    results = reader.open_results(path)
    create(path, overwrite=True).close()
    with pytest.raises(HydrascopeError, match=REPLACED):
        results["total"].load()
    shutil.rmtree(path)
    with pytest.raises(HydrascopeError, match=r"r\.zarr was deleted while it was read: measure it again"):
        results["direct"].load()


def test_xarray_opens_it_without_a_word(tmp_path: Path) -> None:
    expected = stored(tmp_path / "r.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = xr.open_zarr(tmp_path / "r.zarr").load()
        xr.testing.assert_identical(xr.open_zarr(tmp_path / "r.zarr", consolidated=False).load(), opened)
    # What is of the folder, not of what was measured, `open_results` leaves out.
    assert {len(opened.attrs.pop(name)) for name in ("run", "checksum")} == {32, 64}
    xr.testing.assert_identical(opened, expected)
    assert set(opened.coords) == set(STATIC_VARIABLES) - {"target", "downstream"}
    assert opened.sel(ablated="mlp.0", component="attn.1")["downstream"]


def test_texts_are_strings_on_disk_and_python_s_own_in_memory(whole: Path) -> None:
    """Numpy's own can't be cast by `astype(str)`, and xarray can't find the label of the largest among them."""
    opened, on_disk = reader.open_results(whole), xr.open_zarr(whole)
    texts = {name for name, each in on_disk.variables.items() if each.dtype == np.dtypes.StringDType()}
    assert texts == {name for name, each in opened.variables.items() if each.dtype == object}
    assert {"ablated", "text", "target_text", "token_text"} < texts
    assert opened["ablated"].values.astype(str).tolist() == LABELS
    lost = -opened["total"].mean(["readout", "prompt", "patch"])
    assert lost.idxmax("ablated").item() == LABELS[int(lost.argmax("ablated"))]


def test_no_texts_are_texts_too(tmp_path: Path) -> None:
    """Of no elements nothing but the dtype says what they are."""
    path, nothing = tmp_path / "r.zarr", {"metric": slice(0)}
    everything = measured(3, 1, "float32").drop_dims("metric")
    with create_for(path, everything, known(3).isel(nothing)) as writer:
        write(writer, everything)
    assert xr.open_zarr(path)["metric"].dtype == np.dtypes.StringDType()
    opened = reader.open_results(path)
    assert opened["metric"].size == 0
    assert opened["metric"].dtype == opened["metric_units"].dtype == object


def test_everything_says_what_it_is_in_which_unit(whole: Path) -> None:
    for opened in (xr.open_zarr(whole), reader.open_results(whole)):
        assert set(opened.variables) == set(MEASURED_VARIABLES) | set(STATIC_VARIABLES)
        for name, variable in opened.variables.items():
            assert variable.attrs.keys() == {"long_name", "units"}, name
            assert all(variable.attrs.values()), name
    assert opened["total"].attrs["units"] == "logits"
    assert set(opened.attrs) == {*known(1).attrs, "format", "measured", "chunk_size", "worst_imbalance"}


def test_only_what_is_looked_at_is_read(tmp_path: Path) -> None:
    """A damaged chunk of one variable is named when that is read; the others are as they were."""
    expected = stored(tmp_path / "r.zarr")
    chunk(tmp_path / "r.zarr", "total").write_bytes(b"damaged")
    opened = reader.open_results(tmp_path / "r.zarr")
    for name in set(expected.variables) - {"total"}:
        xr.testing.assert_identical(opened[name].load(), expected[name])
    # A chunk is a block of prompts: those of the others can be read.
    xr.testing.assert_identical(opened["total"].isel(prompt=slice(3, 7)).load(), expected["total"][:, 3:])
    with pytest.raises(HydrascopeError, match=r"r\.zarr is damaged, total cannot be read .*: resume its run") as caught:
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
    opened = reader.open_results(tmp_path / "r.zarr")
    assert not {key.split("/c/")[0] for key in read if "/c/" in key} & set(MEASURED_VARIABLES)
    xr.testing.assert_identical(opened["unembed"].isel(prompt=4).load(), expected["unembed"].isel(prompt=4))
    assert [key for key in read if key.split("/")[0] in MEASURED_VARIABLES and "/c/" in key] == ["unembed/c/0/1/0"]


def chunk(path: Path, name: str) -> Path:
    """The first chunk of a variable."""
    return sorted(file for file in (path / name / "c").rglob("*") if file.is_file())[0]


def test_nothing_in_it_is_a_pickle(whole: Path) -> None:
    for file in whole.rglob("zarr.json"):
        assert "pickle" not in file.read_text()


def test_an_interrupted_run_gives_what_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    everything = measured(7, 2, "float32")
    with create(path) as writer:
        with pytest.raises(HydrascopeError, match=r"nothing of .* is measured yet"):
            reader.open_results(path)
        write(writer, everything, 0)
    read = reader.open_results(path)
    assert read.attrs["measured"] == read.sizes["prompt"] == 3
    found = read[list(MEASURED_VARIABLES)].load()
    xr.testing.assert_equal(found.drop_vars(found.coords), everything.isel(prompt=slice(3)))
    # A block of which only a part was written doesn't count,
    shutil.copytree(path / "total/c/0/0", path / "total/c/0/1")
    xr.testing.assert_identical(reader.open_results(path), read)
    # and doesn't stand in for what is missing.
    shutil.rmtree(path / "total/c/0/0")
    with pytest.raises(HydrascopeError, match=r"is damaged, total cannot be read \(total/c/0/0/0/0 is missing\)"):
        reader.open_results(path)


@pytest.mark.parametrize("name", ["unembed_ablated", "patch_prompt", "imbalance", "text", "downstream", "ablated"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "delete", "metadata"])
def test_damage_is_named(path: Path, name: str, damage: str) -> None:
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
    if damage in ("delete", "metadata") or name in STATIC_VARIABLES:
        # Known at once; what else is damaged in what is measured is found when it is looked at.
        with pytest.raises(HydrascopeError, match="is damaged"):
            reader.open_results(path)
    what = "missing" if damage == "delete" else "not what was written"
    with pytest.raises(HydrascopeError, match=f"is damaged, {name} cannot be read .{name}/.* is {what}") as caught:
        reader.open_results(path).load()
    assert "\n" not in str(caught.value)


def test_a_piece_in_the_place_of_another_is_named(path: Path, tmp_path: Path) -> None:
    """A chunk over another of its variable or of another one, a block's checksums over another's, another run's."""
    stored(tmp_path / "twin.zarr")
    for source, target, message in (
        ("r.zarr/total/c/0/0/0/0", "total/c/0/1/0/0", "total/c/0/1/0/0 is not what was written"),
        ("r.zarr/direct/c/0/0/0/0", "total/c/0/0/0/0", "total/c/0/0/0/0 is not what was written"),
        (
            "r.zarr/checksums/3/zarr.json",
            "checksums/0/zarr.json",
            "checksums/0/zarr.json belongs to another run or chunk",
        ),
        ("twin.zarr/checksums/0/zarr.json", "checksums/0/zarr.json", "checksums/0/zarr.json belongs to another run or"),
        ("twin.zarr/checksums/zarr.json", "checksums/zarr.json", "checksums/zarr.json belongs to another run or chunk"),
        ("r.zarr/zarr.json", "checksums/3/zarr.json", "checksums/3/zarr.json belongs to another run or chunk"),
        ("twin.zarr/zarr.json", "zarr.json", "checksums/zarr.json belongs to another run or chunk"),
    ):
        damaged = tmp_path / "damaged.zarr"
        shutil.copytree(path, damaged)
        shutil.copy(tmp_path / source, damaged / target)
        with pytest.raises(HydrascopeError, match=f"damaged.zarr is damaged.*{message}"):
            reader.open_results(damaged).load()
        shutil.rmtree(damaged)


def test_what_is_not_listed_is_not_read(tmp_path: Path) -> None:
    """Files and whole variables that somebody else put into a result change nothing of it."""
    expected = stored(tmp_path / "r.zarr")
    (tmp_path / "r.zarr" / "notes.txt").write_text("mine")
    shutil.copytree(tmp_path / "r.zarr" / "total", tmp_path / "r.zarr" / "other")
    xr.testing.assert_identical(reader.open_results(tmp_path / "r.zarr").load(), expected)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"measured": -5}, "is damaged, its attributes"),
        ({"measured": 6}, "is damaged, its attributes"),
        ({"measured": "seven"}, "is damaged, its attributes"),
        ({"model": "tox"}, "is damaged, its attributes"),
        ({"checksum": None}, "is damaged, its attributes"),
        ({"run": "0" * 32}, "is damaged, its attributes"),
        ({"more": {"deep": [1]}}, "is damaged, its attributes"),
        ({"format": None}, "holds format None"),
        (None, r"is no hydrascope result, or its zarr\.json is damaged"),
        ([], r"is no hydrascope result, or its zarr\.json is damaged"),
        ({}, r"is no hydrascope result, or its zarr\.json is damaged"),
    ],
)
def test_changed_attributes_are_refused(path: Path, attributes: Any, message: str) -> None:
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"] = {**root["attributes"], **attributes} if attributes else attributes
    (path / "zarr.json").write_text(json.dumps(root))
    for use in (reader.open_results, reader.read_attributes):
        with pytest.raises(HydrascopeError, match=message) as caught:
            use(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 100_000, b"1" * 10_000, b"null", b'{"attributes": 5}'])
def test_a_broken_zarr_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.zarr").mkdir()
    (tmp_path / "r.zarr" / "zarr.json").write_bytes(content)
    with pytest.raises(HydrascopeError, match=r"is no hydrascope result, or its zarr\.json is damaged"):
        reader.open_results(tmp_path / "r.zarr")


@pytest.mark.parametrize("name", ["zarr.json", "checksums/0/zarr.json", "total/c/0/0/0/0", "text/c/0"])
@pytest.mark.parametrize("what", ["pipe", "device"])
def test_a_pipe_is_not_waited_for_and_a_device_not_read(path: Path, name: str, what: str) -> None:
    file = path / name
    file.unlink()
    if what == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/null")
    with pytest.raises(HydrascopeError, match="damaged"):
        reader.open_results(path)


def test_what_is_no_longer_a_file_when_it_is_read(path: Path) -> None:
    read = reader.open_results(path)
    chunk = path / "total/c/0/0/0/0"
    chunk.unlink()
    chunk.symlink_to("/dev/zero")
    with pytest.raises(HydrascopeError, match="total cannot be read"):
        read["total"].load()


def test_what_may_not_be_read_is_said_to_be(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", closed)
    with pytest.raises(HydrascopeError, match=r"cannot read .*r\.zarr \(Permission denied\)"):
        reader.open_results(whole)


def test_what_is_no_result_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(HydrascopeError, match="there is no"):
        reader.open_results(tmp_path / "none.zarr")
    (tmp_path / "file").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "precious").write_text("precious")
    xr.Dataset({"a": 1}).to_zarr(tmp_path / "other.zarr", zarr_format=3, consolidated=False)
    for name in ("file", "folder", "other.zarr"):
        with pytest.raises(HydrascopeError, match="is no hydrascope result"):
            reader.open_results(tmp_path / name)
        with pytest.raises(HydrascopeError, match="exists"):
            create(tmp_path / name)
    assert (tmp_path / "folder" / "precious").read_text() == "precious"


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("hydrascope results 1", "holds a result of format 1, which is no longer read: measure again"),
        (2, "holds a result of format 2, which is no longer read: measure again"),
        (4, "holds format 4, and this hydrascope reads 3: use a newer one"),
    ],
)
def test_another_format_is_refused(path: Path, version: Any, message: str) -> None:
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"]["format"] = version
    (path / "zarr.json").write_text(json.dumps(root))
    for use in (reader.open_results, reader.read_attributes):
        with pytest.raises(HydrascopeError, match=message) as caught:
            use(path)
        assert "\n" not in str(caught.value)
