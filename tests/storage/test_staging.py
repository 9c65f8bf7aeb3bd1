"""What a path means, what may be deleted, and what a killed run leaves."""

import os
import uuid
from pathlib import Path

import pytest
import xarray as xr
from stored import create, stored

from hydrascope.storage import staging
from hydrascope.storage.paths import require_room, resolve_path
from hydrascope.storage.reader import open_results, read_attributes
from hydrascope.storage.staging import recover_staging, require_only_ours
from hydrascope.utils.errors import HydrascopeError


def test_home_and_links_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert (
        resolve_path("~/r.zarr") == resolve_path("r.zarr") == resolve_path(tmp_path / "r.zarr") == tmp_path / "r.zarr"
    )
    assert resolve_path("link") == tmp_path / "target"


@pytest.mark.parametrize("path", ["~nobody-of-that-name/r.zarr", "loop/r.zarr", "x" * 256, "a/" + "x" * 5000, "a\0b"])
def test_what_is_no_path_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(HydrascopeError, match=r"cannot use .*: choose another path"):
        resolve_path(path)


def test_a_folder_that_may_not_be_entered_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(self: Path, **options: object) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", closed)
        with pytest.raises(HydrascopeError, match=r"cannot use .* \(Permission denied\): choose another path"):
            resolve_path(tmp_path / "r.zarr")


def test_whether_there_is_room_is_known_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_room(tmp_path / "deep" / "r.zarr")
    (tmp_path / "file").write_text("precious")
    with pytest.raises(HydrascopeError, match=r"cannot create .*file/r\.zarr \(.*file is no folder\)"):
        require_room(tmp_path / "file" / "r.zarr")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(HydrascopeError, match="may not be written to"):
        require_room(tmp_path / "r.zarr")


def test_an_overwrite_through_a_link_replaces_what_it_points_to(tmp_path: Path) -> None:
    stored(tmp_path / "real" / "r.zarr")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "r.zarr")
    create(resolve_path(tmp_path / "link"), overwrite=True).close()
    assert (tmp_path / "link").is_symlink()
    assert read_attributes(tmp_path / "real" / "r.zarr")["measured"] == 0
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["r.zarr"]


@pytest.mark.parametrize(
    "name", ["notes.txt", "total/plot.png", "total/c/0/0/0/mine.partial", "mine/zarr.json", ".hidden", "checksums/x/y"]
)
def test_a_result_that_holds_more_is_not_overwritten(tmp_path: Path, name: str) -> None:
    stored(tmp_path / "r.zarr")
    require_only_ours(tmp_path / "r.zarr")
    (tmp_path / "r.zarr" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "r.zarr" / name).write_text("precious")
    with pytest.raises(
        HydrascopeError, match=rf"it holds files that hydrascope did not write \({name}\): move them away"
    ):
        create(tmp_path / "r.zarr", overwrite=True)
    assert (tmp_path / "r.zarr" / name).read_text() == "precious"
    assert open_results(tmp_path / "r.zarr").sizes["prompt"] == 7


def test_links_in_a_result_are_not_ours(tmp_path: Path) -> None:
    stored(tmp_path / "r.zarr")
    for number in range(5):
        (tmp_path / "r.zarr" / f"link{number}").symlink_to(tmp_path)
    with pytest.raises(HydrascopeError, match=r"\(link0, link1, link2 and 2 more\)"):
        require_only_ours(tmp_path / "r.zarr")


def test_what_zarr_leaves_of_a_killed_write_is_ours(tmp_path: Path) -> None:
    stored(tmp_path / "r.zarr")
    for name in ("total/c/0/0/0/0", "total/zarr", "checksums/zarr"):
        (tmp_path / "r.zarr" / f"{name}.{uuid.uuid4().hex}.partial").write_text("")
    require_only_ours(tmp_path / "r.zarr")


def killed(tmp_path: Path, *, old: bool, of: str = "r.zarr") -> Path:
    """What a run leaves that is killed while it makes `of`, once the old one is moved away."""
    room = tmp_path / ".hydrascope-killed"
    (room / "new").mkdir(parents=True)
    (room / "of").write_text(of)
    if old:
        (tmp_path / "r.zarr").rename(room / "old")
    return room


def test_what_a_killed_run_left_is_cleared_and_the_old_result_comes_back(tmp_path: Path) -> None:
    whole = stored(tmp_path / "r.zarr")
    killed(tmp_path, old=True)
    recover_staging(tmp_path / "r.zarr")
    assert list(tmp_path.iterdir()) == [tmp_path / "r.zarr"]
    xr.testing.assert_identical(open_results(tmp_path / "r.zarr").load(), whole)
    killed(tmp_path, old=False)
    recover_staging(tmp_path / "r.zarr")
    assert list(tmp_path.iterdir()) == [tmp_path / "r.zarr"]


def test_what_is_not_surely_of_a_killed_run_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another result's, a living run's, a user's own; and where there are no locks, anyone's."""
    for name in (".r.zarr.partial", ".hydrascope-mine", ".r.zarr.removed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious").write_text("precious")
    room = killed(tmp_path, old=False, of="other.zarr")
    stored(tmp_path / "r.zarr")
    recover_staging(tmp_path / "r.zarr")
    (room / "of").write_text("r.zarr")
    with staging.lock(room, "of"):
        recover_staging(tmp_path / "r.zarr")
    with monkeypatch.context() as patch:
        patch.setattr(staging, "fcntl", None)
        recover_staging(tmp_path / "r.zarr")
    create(tmp_path / "r.zarr", overwrite=True).close()
    assert len(list(tmp_path.rglob("precious"))) == 3
    assert room.exists()
    recover_staging(tmp_path / "r.zarr")
    assert not room.exists()
