"""One run writes to a result, a block at a time, and what was there before is lost only to what stands."""

import errno
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from stored import create, expected, measured, stored, write

from hydrascope.storage import staging
from hydrascope.storage import writer as writing
from hydrascope.storage.reader import open_results, read_attributes
from hydrascope.storage.staging import recover_staging
from hydrascope.utils.errors import HydrascopeError

EVERYTHING = measured(7, 2, "float32")


async def full(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_an_overwrite_that_fails_keeps_the_old_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.zarr"
    old = stored(path)
    with monkeypatch.context() as patch:
        patch.setattr("zarr.storage.LocalStore.set", full)
        with pytest.raises(HydrascopeError, match="No space left on device"):
            create(path, overwrite=True)
    xr.testing.assert_identical(open_results(path).load(), old)
    assert list(tmp_path.iterdir()) == [path]
    with create(path, overwrite=True):
        assert read_attributes(path)["measured"] == 0
    assert list(tmp_path.iterdir()) == [path]


def test_an_overwrite_that_cannot_move_in_puts_the_old_result_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.zarr"
    old, rename = stored(path), Path.rename

    def failing(self: Path, target: Path) -> None:
        if self.name == "new":
            raise OSError(errno.EIO, "Input/output error")
        rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing)
        with pytest.raises(HydrascopeError, match=r"cannot create .*r\.zarr \(Input/output error\)"):
            create(path, overwrite=True)
    xr.testing.assert_identical(open_results(path).load(), old)
    assert list(tmp_path.iterdir()) == [path]


def test_an_old_result_that_cannot_be_put_back_is_not_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.zarr"
    old, rename = stored(path), Path.rename

    def failing(self: Path, target: Path) -> None:
        if self.name in ("new", "old"):
            raise OSError(errno.EIO, "Input/output error")
        rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing)
        with pytest.raises(HydrascopeError, match="Input/output error"):
            create(path, overwrite=True)
    assert not path.exists()
    recover_staging(path)
    xr.testing.assert_identical(open_results(path).load(), old)
    assert list(tmp_path.iterdir()) == [path]


def test_of_two_overwrites_at_once_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second run creates the result after the first has moved the old one away: the second wins, and is locked."""
    path = tmp_path / "r.zarr"
    stored(path)
    rename, others = Path.rename, []

    def overtaken(self: Path, target: Path) -> None:
        if self.name == "new" and not others:
            others.append(None)
            others[0] = create(path)
        rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", overtaken)
        with pytest.raises(HydrascopeError, match=r"another run writes to .*r\.zarr: let it end"):
            create(path, overwrite=True)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(HydrascopeError, match="another run writes to"):
        create(path, overwrite=True)
    with others[0] as writer:
        write(writer, EVERYTHING)
    xr.testing.assert_identical(open_results(path).load(), expected(EVERYTHING))


def test_a_full_disk_keeps_what_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.zarr"
    with create(path) as writer:
        write(writer, EVERYTHING, 0)
        before = open_results(path).load()
        with monkeypatch.context() as patch:
            patch.setattr("zarr.storage.LocalStore.set", full)
            with pytest.raises(HydrascopeError, match=r"No space left on device\); 3 prompts are kept"):
                write(writer, EVERYTHING, 3)
            with pytest.raises(HydrascopeError, match=r"cannot create .*No space left on device"):
                create(tmp_path / "other.zarr")
        assert list(tmp_path.iterdir()) == [path]
        xr.testing.assert_identical(open_results(path).load(), before)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            write(writer, EVERYTHING)
    xr.testing.assert_identical(open_results(path).load(), expected(EVERYTHING))


def test_a_second_run_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    path = tmp_path / "r.zarr"
    with create(path) as writer:
        write(writer, EVERYTHING, 0)
        for second in (writing.resume, lambda path: create(path, overwrite=True)):
            with pytest.raises(HydrascopeError, match=r"another run writes to .*r\.zarr: let it end"):
                second(path)
        write(writer, EVERYTHING, 3)
    with writing.resume(path) as writer:
        with pytest.raises(HydrascopeError, match="another run writes to"):
            writing.resume(path)
        write(writer, EVERYTHING)
    xr.testing.assert_identical(open_results(path).load(), expected(EVERYTHING))
    with create(path, overwrite=True), pytest.raises(HydrascopeError, match="another run writes to"):
        create(path, overwrite=True)


def test_without_locks_the_later_run_wins_and_the_earlier_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on file systems that have none."""
    monkeypatch.setattr(staging, "fcntl", None)
    path, others = tmp_path / "r.zarr", measured(7, 2, "float32", seed=1)
    first = create(path)
    write(first, EVERYTHING, 0)
    second = create(path, overwrite=True)
    write(second, others, 0)
    with pytest.raises(
        HydrascopeError, match=r"another run writes to .*r\.zarr: this one ends and leaves the result to it"
    ):
        write(first, EVERYTHING, 3)
    write(second, others)
    xr.testing.assert_identical(open_results(path).load(), expected(others))


def test_without_locks_two_resumes_do_not_both_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "fcntl", None)
    path = tmp_path / "r.zarr"
    with create(path) as writer:
        write(writer, EVERYTHING, 0)
    first, second = writing.resume(path), writing.resume(path)
    write(first, EVERYTHING, 3)
    with pytest.raises(HydrascopeError, match="another run writes to"):
        write(second, EVERYTHING, 3)
    write(first, EVERYTHING)
    xr.testing.assert_identical(open_results(path).load(), expected(EVERYTHING))


def test_a_run_whose_result_is_gone_says_so(tmp_path: Path) -> None:
    with create(tmp_path / "r.zarr") as writer:
        shutil.rmtree(tmp_path / "r.zarr")
        with pytest.raises(
            HydrascopeError, match=r"this run ends, since its result was changed: there is no .*r\.zarr"
        ):
            write(writer, EVERYTHING, 0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["total/c/0/1/0/0", "checksums/3/zarr.json"])
def test_a_damaged_block_is_written_again(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "r.zarr"
    whole = stored(path)
    content = (path / damage).read_bytes()
    (path / damage).write_bytes(b"damaged")
    with writing.resume(path) as writer:
        assert writer.unmeasured == [range(3, 6)]
        write(writer, EVERYTHING)
    assert (path / damage).read_bytes() == content
    xr.testing.assert_identical(open_results(path).load(), whole)


@pytest.mark.parametrize("damage", ["text/c/0", "total/zarr.json", "checksums/zarr.json"])
def test_what_no_run_measures_cannot_be_resumed(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "r.zarr"
    stored(path)
    (path / damage).write_bytes(b"damaged")
    with pytest.raises(HydrascopeError, match=f"{damage} is not what was written.*: measure (it )?again"):
        writing.resume(path)
    # It is free again.
    with create(path, overwrite=True) as writer:
        write(writer, EVERYTHING)
    xr.testing.assert_identical(open_results(path).load(), expected(EVERYTHING))


def test_all_that_counts_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file of a block is synced before the prompts in it count as measured."""
    synced, sync = set(), os.fsync

    def noted(file: int) -> None:
        synced.add(os.fstat(file).st_ino)
        sync(file)

    monkeypatch.setattr(os, "fsync", noted)
    stored(tmp_path / "r.zarr")
    files = [file for file in (tmp_path / "r.zarr").rglob("*") if file.is_file()]
    assert len(files) > 60
    assert {file.stat().st_ino for file in files} <= synced


def test_numbers_of_no_value_are_written_too(tmp_path: Path) -> None:
    """A chunk that is all fill value must be there, or it would look like one that is gone."""
    nothing = xr.zeros_like(EVERYTHING).map(lambda values: values / 0 if values.dtype.kind == "f" else values)
    with np.errstate(all="ignore"), create(tmp_path / "r.zarr") as writer:
        write(writer, nothing)
    xr.testing.assert_identical(open_results(tmp_path / "r.zarr").load(), expected(nothing))
