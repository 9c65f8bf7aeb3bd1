"""SIGKILL at random moments of runs, resumed ones, overwrites and workers: each goes on to the same bits."""

import random
import shutil
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from faults.processes import TEXTS, Process, identical
from hydrascope.errors import HydrascopeError
from hydrascope.store import read_attributes


def kills(folder: Path, count: int, seed: int = 0) -> Counter[str]:
    """How many living runs of each kind were killed, and went on."""
    whole, half, moments = folder / "whole.zarr", folder / "half.zarr", random.Random(seed)
    first = Process(whole)
    begin = time.monotonic()
    assert first.end() == ""
    length, found = time.monotonic() - begin, Counter[str]()
    while not _is_begun(half):
        Process(half, overwrite=half.exists()).kill(length * 0.7)
    before = {"run": None, "resume": half, "overwrite": whole, "join": None}
    while found.total() < count:
        scene = tuple(before)[found.total() % len(before)]
        room = folder / "room"
        room.mkdir()
        out, there = room / "r.zarr", before[scene]
        if there:
            shutil.copytree(there, out)
        others = [Process(out, join=True) for _ in range(2 if scene == "join" else 0)]
        killed = Process(out, **{scene: True} if scene != "run" else {})
        found[scene] += killed.kill(moments.uniform(0, length / 2 if scene == "resume" else length))
        if scene == "overwrite":
            assert out.exists() or list(room.glob(".hydrascope-*/old")), "the old result is lost, and no new one there"
        if others:
            # One more is killed; the last one does what is left.
            others[0].kill(moments.uniform(0, length / 3))
            assert others[1].end() == ""
        assert Process(out, resume=True).end() == ""
        identical(out, whole)
        assert [file.name for file in room.iterdir()] == ["r.zarr"]
        shutil.rmtree(room)
    return found


def _is_begun(path: Path) -> bool:
    """Whether a part of a result is measured, and not all."""
    with suppress(HydrascopeError):
        return 0 < read_attributes(path)["measured"] < len(TEXTS)
    return False
