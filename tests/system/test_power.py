"""Power fails: what was said to be kept is there, and whole, and all goes on to the same bits."""

import os
from pathlib import Path
from random import Random

import pytest
from faults.power import TOP, Recorded, left, power_failures, recorded_scene
from faults.writes import SCENES

from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.fsync import make_folders, sync_folder


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES)
def test_a_power_failure_at_any_moment_loses_nothing_that_was_kept(tmp_path: Path, scene: str) -> None:
    recorded = recorded_scene(tmp_path / "recorded", scene)
    found = power_failures(tmp_path, scene, recorded, 12)
    assert found.keys() <= {"none", "new", "old", "damaged"}
    # What is put back is there whatever happens.
    assert len(found) >= 2 or found.keys() == {"old"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scene", "folders"),
    # Nothing is written where a result is put back.
    [(scene, folders) for scene in SCENES for folders in (True, False) if folders or scene != "put back"],
)
def test_had_nothing_been_synced_it_would_be_noticed(tmp_path: Path, scene: str, folders: bool) -> None:
    recorded = recorded_scene(tmp_path / "recorded", scene).forgetting(folders)
    with pytest.raises((AssertionError, HydrascopeError, FileNotFoundError)):
        power_failures(tmp_path, scene, recorded, 100, seed=6)


def test_what_may_be_left_of_a_file_that_is_moved_over_another() -> None:
    """By hand: `part` is made, written and moved over `a`, of which only the content is synced."""
    a, part = (TOP, "a"), (TOP, "part")
    names = [{a: 1}, {a: 1, part: 2}, {a: 1, part: 2}, {a: 2}, {a: 2}]
    contents = {1: [(0, b"old")], 2: [(1, b""), (2, b"new")]}

    def states(syncs: dict[int, list[int]], moment: int) -> set[tuple]:
        recorded, drawn = Recorded(names, contents, {TOP: [0], 1: [0], **syncs}, []), Random(0)
        found = (left(recorded, moment, drawn) for _ in range(300))
        return {tuple(sorted((name, content[node]) for (_, name), node in at.items())) for at, content in found}

    old, new, made = ("a", b"old"), ("a", b"new"), ("part", b"new")
    empty, zeros = b"", b"\0\0\0"
    # Synced, but its name may be lost, or still the first one.
    assert states({2: [2]}, 4) == {(old,), (old, made), (new,)}
    # That its name survives says nothing of what is in it.
    assert states({TOP: [0, 3]}, 4) == {(("a", content),) for content in (b"new", empty, zeros)}
    assert states({2: [2], TOP: [0, 3]}, 4) == {(new,)}
    # A sync that had only begun is none.
    assert states({2: [2]}, 2) == {(old,), *((old, ("part", content)) for content in (b"new", empty, zeros))}


def test_an_overwrite_whose_move_cannot_be_synced_keeps_the_old_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, act = SCENES["overwrite"]
    path = tmp_path / "r.zarr"
    before(path)
    content = (path / "zarr.json").read_bytes()

    def refuses(folder: Path) -> None:
        if folder == tmp_path and list(tmp_path.glob(".hydrascope-*/old")):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr("hydrascope.storage.staging.sync_folder", refuses)
    with pytest.raises(HydrascopeError, match=r"cannot create .*r\.zarr \(Input/output error\)"):
        act(path)
    assert (path / "zarr.json").read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_new_folders_are_synced_into_those_above_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("hydrascope.utils.fsync.sync_folder", synced.append)
    make_folders(tmp_path / "a" / "b")
    assert set(synced) == {tmp_path, tmp_path / "a"}
    make_folders(tmp_path / "a" / "b")
    assert len(synced) == 2


def test_file_systems_that_sync_no_folders_are_put_up_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(number: int):
        def sync(file: int) -> None:
            raise OSError(number, os.strerror(number))

        return sync

    monkeypatch.setattr(os, "fsync", refusing(22))
    sync_folder(tmp_path)
    monkeypatch.setattr(os, "fsync", refusing(5))
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)
