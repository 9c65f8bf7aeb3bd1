"""What batches share of their clean runs, kept until they are measured: in memory, or in a file without a name."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from hydrascope.engines.clean.prefix import SharedPrefix

#: Bytes that a file takes at most.
FILE_BYTES = 16 * 2**30

#: Gives back what was kept, once; None where it can't be read.
Back = Callable[[], SharedPrefix | None]

#: Keeps what a batch shares, which took so many seconds to compute; None where there is no room, or it isn't worth it.
KeepShared = Callable[[SharedPrefix, float], Back | None]


def in_memory(room: float) -> KeepShared:
    """Keep what fits into `room` bytes where it is."""

    def keep(prefix: SharedPrefix, seconds: float) -> Back | None:
        nonlocal room
        if prefix.nbytes > room:
            return None
        room -= prefix.nbytes
        return lambda: prefix

    return keep


def in_either(first: KeepShared, second: KeepShared) -> KeepShared:
    """Keep as `second` does what `first` doesn't."""
    return lambda prefix, seconds: first(prefix, seconds) or second(prefix, seconds)


def in_file(folder: Path) -> KeepShared:
    """Keep it in a file of `folder` that has no name: nothing is seen there, or outlives the process.

    `FILE_BYTES`, but at most half of what is free there, and only as long as writing takes no longer than computing
    it again would. What can't be written or read is computed again: none of that is an error.
    """
    try:
        return _InFile(folder)
    except OSError:
        return in_memory(0)


class _InFile:
    def __init__(self, folder: Path) -> None:
        self._room: float = min(FILE_BYTES, shutil.disk_usage(folder).free // 2)
        self._file = tempfile.TemporaryFile(prefix=".hydrascope-", dir=folder)  # noqa: SIM115
        #: How many seconds computing took more than writing.
        self._saved = 0.0

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    def __call__(self, prefix: SharedPrefix, seconds: float) -> Back | None:
        if prefix.nbytes > self._room:
            return None
        start = time.perf_counter()
        try:
            first = self._file.seek(0, os.SEEK_END)
            for each in prefix.tensors:
                self._file.write(_bytes(each))
            self._file.flush()
        except OSError:
            self._room = 0
            return None
        self._saved += seconds - (time.perf_counter() - start)
        self._room = self._room - prefix.nbytes if self._saved > 0 else 0
        return partial(self._back, first, prefix.of([each.to("meta") for each in prefix.tensors]))

    def _back(self, first: int, shapes: SharedPrefix) -> SharedPrefix | None:
        tensors = [torch.empty_strided(each.shape, each.stride(), dtype=each.dtype) for each in shapes.tensors]
        try:
            self._file.seek(first)
            for each in tensors:
                if self._file.readinto(_bytes(each)) != each.nbytes:
                    return None
        except OSError:
            return None
        return shapes.of(tensors)


def _bytes(tensor: Tensor) -> memoryview:
    """What stands in memory of a tensor that has no gaps."""
    return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).numpy().data
