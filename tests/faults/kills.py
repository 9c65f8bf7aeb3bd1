"""SIGKILL at random moments of runs, resumed ones and overwrites: each goes on to the same bits."""

import random
import shutil
import time
from collections import Counter
from pathlib import Path

from faults.processes import Process, identical


def kills(folder: Path, count: int, seed: int = 0) -> Counter[str]:
    """How many living runs of each kind were killed, and went on."""
    out, whole, moments = folder / "r.zarr", folder / "whole.zarr", random.Random(seed)
    first = Process(whole)
    begin = time.monotonic()
    assert first.end() == ""
    length, found = time.monotonic() - begin, Counter[str]()
    while found.total() < count:
        scene = ("run", "resume", "overwrite")[found.total() % 3]
        if scene == "run":
            shutil.rmtree(out, ignore_errors=True)
        killed = Process(out, resume=scene == "resume", overwrite=scene == "overwrite")
        found[scene] += killed.kill(moments.uniform(0, length))
        if scene == "overwrite":
            assert out.exists() or list(folder.glob(".hydrascope-*/old")), (
                "the old result is lost, and no new one there"
            )
        if scene != "run":
            assert Process(out, resume=True).end() == ""
            identical(out, whole)
            assert sorted(file.name for file in folder.iterdir()) == ["r.zarr", "whole.zarr"]
    return found
