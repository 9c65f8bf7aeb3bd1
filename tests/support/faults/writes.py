"""A fault at one write after the other of a run, a resumed one and an overwrite: all go on to the same bits.

With a result of random numbers, so that thousands of runs take minutes: what a model computes is no part of it.
"""

import errno
import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
import xarray as xr
from stored import create_for, known, measured, write

from faults.disk import Killed, failing
from hydrascope.engines.clean.spill_store import write_shard
from hydrascope.storage import writer as writing
from hydrascope.storage.coordination import join_workers
from hydrascope.storage.reader import open_results
from hydrascope.storage.staging import recover_staging
from hydrascope.utils.disk_errors import disk
from hydrascope.utils.errors import HydrascopeError

# Few variables: one is written as the other.
_KNOWN = known(7).drop_vars([name for name in known(7).variables if name not in ("target", "ablated", "text")])
NEW, OLD = (measured(7, 2, "float32", seed)[["total", "imbalance", "patch_prompt"]] for seed in (0, 1))

FAULTS: dict[str, Callable[[], BaseException]] = {
    "ENOSPC": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "EIO": lambda: OSError(errno.EIO, os.strerror(errno.EIO)),
    "EACCES": lambda: PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
    "killed": Killed,
}


def started(path: Path, *, overwrite: bool = False) -> None:
    """As `run` does."""
    recover_staging(path)
    with create_for(path, NEW, _KNOWN, overwrite=overwrite) as writer:
        write(writer, NEW)


def resumed(path: Path) -> None:
    """As `run` does with `resume`."""
    recover_staging(path)
    if not path.exists():
        started(path)
        return
    with writing.resume(path) as writer:
        write(writer, NEW)


def overwritten(path: Path) -> None:
    started(path, overwrite=True)


def joined(path: Path) -> None:
    """As `run` does with `join`."""
    recover_staging(path)
    with join_workers(path) as workers:
        for chunk in workers.share([range(4), range(4, 7)], lambda chunk: False, "clean-"):
            with disk(f"cannot keep clean values beside {path}"):
                write_shard(workers.clean, chunk.start, {"likeliest": torch.arange(len(chunk))})
        with workers.exclusive():
            workers.agree_on(lambda: {"measured": 0})
            writer = writing.resume(path, workers) if path.exists() else create_for(path, NEW, _KNOWN, workers=workers)
        with writer:
            write(writer, NEW)


def nothing(path: Path) -> None:
    pass


def begun(path: Path) -> None:
    """A result of which two blocks are measured, and the first is damaged."""
    with create_for(path, NEW, _KNOWN) as writer:
        write(writer, NEW, 0, 3)
    (path / "total/c/0/0/0/0").write_bytes(b"damaged")


def old(path: Path) -> None:
    with create_for(path, OLD, _KNOWN) as writer:
        write(writer, OLD)


def between(path: Path) -> None:
    """An overwrite that ended between moving the old result away and the new one in."""
    old(path)
    room = path.parent / ".hydrascope-ended"
    room.mkdir()
    (room / "of").write_bytes(path.name.encode())
    path.rename(room / "old")
    with create_for(room / "new", NEW, _KNOWN):
        pass


#: What is there before, and what is done.
SCENES: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]] = {
    "run": (nothing, started),
    "resume": (begun, resumed),
    "overwrite": (old, overwritten),
    "put back": (between, recover_staging),
    "join": (nothing, joined),
    "join again": (begun, joined),
}


def faulty_writes(folder: Path, scene: str, fault: str, count: int | None = None) -> Counter[str]:
    """What came of a fault at each write, or at `count` of them and one or two more, evenly apart.

    After each, the result goes on to the same bits. What is said is given where it isn't one line about the result.
    """
    before, act = SCENES[scene]
    found = Counter[str]()
    before(folder / "before" / "r.zarr")
    before(folder / "counted" / "r.zarr")
    with failing(folder / "counted") as disk:
        act(folder / "counted" / "r.zarr")
    step = disk.writes // count if count else 1
    for at in range(1 + step // 2, disk.writes + 1, step):
        room = folder / f"{fault} {at}"
        if (folder / "before").exists():
            shutil.copytree(folder / "before", room)
        path = room / "r.zarr"
        with failing(room, at, FAULTS[fault]()):
            try:
                act(path)
                found["nothing"] += 1
            except HydrascopeError as error:
                found["one line" if "r.zarr" in str(error) and "\n" not in str(error) else str(error)] += 1
            except Killed:
                found["killed"] += 1
        finish(room, scene)
        shutil.rmtree(room)
    return found


def finish(room: Path, scene: str) -> tuple[str, int]:
    """Go on; whatever is there on the way is right. What was there, as `kept` says."""
    path = room / "r.zarr"
    recover_staging(path)
    result, measured = kept(path)
    if scene in ("overwrite", "put back"):
        assert result != "none", "neither the old result nor the new one is there"
    if result == "old":
        overwritten(path)
    else:
        resumed(path)
    assert _measured(path).identical(NEW)
    assert [file.name for file in room.iterdir()] == ["r.zarr"]
    return result, measured


def kept(path: Path) -> tuple[str, int]:
    """Which result is there, and how many of its prompts are measured; what is damaged says so."""
    if not path.exists():
        return "none", 0
    try:
        found = _measured(path)
    except HydrascopeError as error:
        if "nothing of" in str(error):
            return "new", 0
        return ("damaged" if "is damaged" in str(error) else str(error)), 0
    measured = found.sizes["prompt"]
    for name, numbers in (("new", NEW), ("old", OLD)):
        if found.identical(numbers.isel(prompt=slice(measured))):
            assert name == "new" or measured == OLD.sizes["prompt"], "a part of the old result is lost"
            return name, measured
    raise AssertionError("what is there was never written")


def _measured(path: Path) -> xr.Dataset:
    found = open_results(path).load()
    return found.drop_vars(found.coords)[list(NEW)].drop_attrs()
