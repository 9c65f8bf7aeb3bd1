"""Real Ray on this machine: its workers measure one result, to the bits of one process; what it can't do is said."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from command import Run
from faults.processes import TEXTS, Process, identical, measured_slowly

from hydrascope.runs import ray_backend
from hydrascope.runs.ray_backend import Share, measure_with_ray
from hydrascope.runs.rounding import precision
from hydrascope.utils.errors import HydrascopeError

if find_spec("ray") is None:
    pytest.skip("needs Ray", allow_module_level=True)
torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def _token() -> Iterator[None]:
    """One for all, from the start: Ray reads it once in a process, when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield


@pytest.fixture(autouse=True)
def _as_in_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tests can be imported, and leave nothing out."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "support"))
    monkeypatch.setattr("hydrascope.runs.start.precision", precision)


def work(out: Path, marks: Path, told: Path) -> None:
    """What a worker does; a file a batch says which of them did it, and it goes on where it is told to."""

    def mark() -> None:
        (marks / f"{os.getpid()}.{time.monotonic_ns()}").touch()
        while not told.exists():
            time.sleep(0.005)

    measured_slowly(out, {"join": True}, lambda: None, mark)


def batches(marks: Path) -> dict[int, int]:
    """How many each process has measured."""
    made = [int(file.name.split(".")[0]) for file in marks.iterdir()]
    return {process: made.count(process) for process in set(made)}


@pytest.mark.slow
def test_one_is_killed_one_joins_and_one_leaves(tmp_path: Path) -> None:
    """Ray starts the killed one again, and all ends in the bits of one process."""
    marks, told, out, killed = tmp_path / "marks", tmp_path / "told", tmp_path / "r.zarr", list[int]()
    marks.mkdir()

    def meanwhile() -> None:
        try:
            Process(tmp_path / "whole.zarr").end()
            # In its first batch, where each stands until it is told to go on.
            while not batches(marks):
                time.sleep(0.005)
            killed.append(next(iter(batches(marks))))
            os.kill(killed[0], signal.SIGKILL)
            # One more comes, and goes: there are blocks for both.
            other = Process(out, join=True, hold=1)
            os.kill(other.process.pid or 0, signal.SIGINT)
            other.process.join()
        finally:
            told.touch()

    beside, said = threading.Thread(target=meanwhile, daemon=True), list[str]()
    beside.start()
    how: dict[str, Any] = {"address": "local", "workers": 1, "device": "cpu", "say": said.append}
    measure_with_ray(work, (out, marks, told), out, 23, **how)
    beside.join()
    assert len(said) == 1
    assert said[0].startswith("1 workers under Ray, each with ")
    identical(out, tmp_path / "whole.zarr")
    # It did nothing but begin one; in its place another did all twelve.
    assert batches(marks).pop(killed[0]) == 1
    assert sorted(batches(marks).values()) == [1, 12]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["marks", "r.zarr", "told", "whole.zarr"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two processors that asks for the token."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = ["start", "--head", f"--port={port}", "--num-cpus=2", "--include-dashboard=false", "--block"]
    head = subprocess.Popen(
        [sys.executable, "-m", "ray.scripts.scripts", *start], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"127.0.0.1:{port}"
    for _ in range(300):
        with suppress(HydrascopeError):
            ray_backend._require_answer(address)
            break
        time.sleep(0.2)
    yield address
    head.terminate()
    head.wait()


@pytest.mark.slow
def test_without_its_token_a_cluster_takes_no_work(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another")
    with pytest.raises(HydrascopeError, match=f"the Ray at {cluster} takes no work from here .*token is missing or"):
        ray_backend._require_answer(cluster)


def test_what_answers_and_is_no_ray_is_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_backend, "_ANSWER", 0.1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(HydrascopeError, match=f"no Ray answers at {address}, though something does"):
            ray_backend._require_answer(address)


@pytest.mark.slow
def test_the_command_line(hydrascope: Run, folder: Path, tmp_path: Path, cluster: str) -> None:
    prompts, one, out = tmp_path / "prompts.txt", tmp_path / "one.zarr", tmp_path / "r.zarr"
    prompts.write_text("\n".join(TEXTS))
    command = ("run", folder / "model", "--prompts", prompts, "--batch-size", 2, "--patches", 2)
    assert hydrascope(*command, "--out", one)[0] == 0
    code, told, err = hydrascope(*command, "--out", out, "--ray", cluster)
    assert code == 0
    # On a busy machine progress is told while this waits.
    assert [line for line in err.splitlines() if not line.endswith("prompts measured")] == []
    assert "2 workers under Ray" in told
    assert "23 prompts measured" in told
    identical(out, one)
    changed = ("--workers", 1, "--keep", "effects", "--resume")
    code, told, err = hydrascope(*command, "--out", out, "--ray", cluster, *changed)
    assert code == 2
    assert "1 workers under Ray" in told
    assert err == (
        f"hydrascope: cannot resume {out}: keep was 'patches', now 'effects': give the options of its start, another "
        "place, or overwrite\n"
    )
    identical(out, one)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--ray", "127.0.0.1:1"), "no Ray answers at 127.0.0.1:1 (Connection refused)"),
        (("--ray", "nowhere"), "nowhere is no address of a Ray cluster: give host:port, auto, or local"),
        (("--ray", "ray://127.0.0.1:1"), "ray://127.0.0.1:1 is no address of a Ray cluster"),
        (("--ray", "host:99999999"), "no Ray answers at host:99999999"),
        (("--ray", "local", "--dry-run"), "leave out --ray"),
        (("--ray", "local", "--overwrite", "--join"), "exclude each other"),
        (("--workers", "2"), "--workers"),
        (("--ray", "local", "--workers", "0"), "'--workers'"),
    ],
)
def test_mistakes_are_one_line(hydrascope: Run, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    code, _, err = hydrascope("run", "built-in", "--prompts", "demo", "--out", tmp_path / "r.zarr", *options)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("nodes", "workers", "device", "share"),
    [
        ([{"CPU": 8}], None, "auto", Share(8, 1, 0)),
        ([{"CPU": 8}], 2, "auto", Share(2, 4, 0)),
        ([{"CPU": 8}], 3, "cpu", Share(3, 2, 0)),
        ([{"CPU": 16, "GPU": 2}, {"CPU": 16, "GPU": 2}, {"CPU": 2}], None, "auto", Share(4, 8, 1)),
        ([{"CPU": 16, "GPU": 2}], None, "cpu", Share(16, 1, 0)),
        # No worker needs more than a node has.
        ([{"CPU": 4}, {"CPU": 12}], 1, "cpu", Share(1, 12, 0)),
    ],
)
def test_what_there_is_is_shared_out(
    nodes: list[dict[str, float]], workers: int | None, device: str, share: Share
) -> None:
    assert Share.of(nodes, workers, device) == share


def test_more_workers_than_there_is_room_for() -> None:
    with pytest.raises(HydrascopeError, match="Ray has 2 processors, and 3 workers are asked for: ask for no more"):
        Share.of([{"CPU": 2}], 3, "cpu")
    with pytest.raises(HydrascopeError, match="Ray has 1 GPUs, and 2 workers"):
        Share.of([{"CPU": 8, "GPU": 1}], 2, "cuda")
