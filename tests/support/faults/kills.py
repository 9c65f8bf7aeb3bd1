"""SIGKILL at random moments of runs, resumed ones, overwrites and workers: each goes on to the same bits."""

import random
import shutil
import time
from collections import Counter
from pathlib import Path

from faults.processes import Process, identical


def kills(folder: Path, count: int, seed: int = 0) -> Counter[str]:
    """How many living runs of each kind were killed, and went on."""
    whole, half, moments = folder / "whole.zarr", folder / "half.zarr", random.Random(seed)
    first = Process(whole)
    begin = time.monotonic()
    assert first.end() == ""
    length, found = time.monotonic() - begin, Counter[str]()
    # In its second block.
    assert Process(half, hold=6).kill(0)
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
