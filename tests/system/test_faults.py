"""A part of the long form of each: no damage is silent, no write that fails and no kill loses a bit, one run wins."""

import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from faults import inputs, states
from faults.damage import BAD, KINDS, damages
from faults.kills import kills
from faults.processes import Process, identical
from faults.writes import FAULTS, SCENES, faulty_writes

from hydrascope.storage.reader import open_results
from hydrascope.utils.errors import HydrascopeError

torch.set_num_threads(1)


def test_no_damage_is_silent(tmp_path: Path) -> None:
    found = damages(tmp_path, 80)
    assert not [outcome for outcome in found if set(outcome) & set(BAD)], found
    assert {kind for kind, opened, _ in found if opened == "refused"} == {kind.__name__ for kind in KINDS} - {"foreign"}
    assert {resumed for *_, resumed in found} == {"mended", "refused"}


@pytest.mark.slow
def test_every_input_ends_in_success_or_in_one_line(tmp_path: Path) -> None:
    bad = []
    found = inputs.inputs(tmp_path, 10, told=lambda *seen: bad.append(seen) if seen[-1] in inputs.BAD else None)
    assert not bad
    assert {kind for kind, _ in found} == {kind.__name__ for kind in inputs.KINDS}
    assert {outcome for _, outcome in found} == {"fine", "one line"}


def test_a_state_of_the_process_changes_no_number_and_ends_in_no_traceback(tmp_path: Path) -> None:
    telling = ("standard output full", "a reader that leaves", "a working directory that is gone")
    found = states.states(tmp_path, telling, ("summary",))
    assert found == {("summary", "one line"): 2, ("summary", "a quiet end"): 1}


@pytest.mark.slow
@pytest.mark.parametrize("state", states.SHELLS)
def test_every_state_of_the_process_is_told_or_changes_nothing(state: str) -> None:
    # Other users, whom some states need, can't enter pytest's own folders.
    with tempfile.TemporaryDirectory() as folder:
        found = states.states(Path(folder), (state,), ("run", "summary"))
    assert not [outcome for _, outcome in found if outcome in states.BAD], found


#: A death and a full disk in every scene; other refusals of the disk, which end alike, in one.
@pytest.mark.parametrize(
    ("scene", "fault"),
    [(scene, fault) for scene in SCENES for fault in FAULTS if fault in ("killed", "ENOSPC") or scene == "run"],
)
def test_a_fault_at_any_write_loses_nothing(tmp_path: Path, scene: str, fault: str) -> None:
    found = faulty_writes(tmp_path, scene, fault, 3)
    assert found.keys() <= ({"killed"} if fault == "killed" else {"one line", "nothing"})
    assert found.total() >= 3


@pytest.mark.slow
def test_a_run_killed_at_any_moment_goes_on(tmp_path: Path) -> None:
    assert kills(tmp_path, 4).total() == 4


@pytest.mark.slow
def test_of_runs_that_start_at_once_one_wins(tmp_path: Path) -> None:
    """Others are told so in one line; who reads meanwhile reads the one result or the other, or is told."""
    out = tmp_path / "r.zarr"
    assert Process(tmp_path / "whole.zarr").end() == ""
    assert Process(out).end() == ""
    whole = open_results(tmp_path / "whole.zarr")["total"].load()
    runs = [Process(out, overwrite=True) for _ in range(3)]
    while any(run.process.is_alive() for run in runs):
        with suppress(HydrascopeError):
            read = open_results(out)["total"].load()
            assert read.equals(whole.isel(prompt=slice(read.sizes["prompt"])))
    said = [run.end() for run in runs]
    assert "" in said
    assert all("another run writes to" in line for line in said if line)
    identical(out, tmp_path / "whole.zarr")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["r.zarr", "whole.zarr"]
