"""A disk that refuses, or a process that dies, at the n-th time that something below a folder is written.

Everything that changes a file or a folder passes Python's audit events, zarr's writes too: so no write is forgotten.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

_CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Killed(BaseException):
    """The process is dead: nothing that it would do on its way out reaches the disk."""


class Disk:
    """Counts the writes below `folder`, and raises `error` at the `at`-th; `Killed` at every one from then on."""

    def __init__(self, folder: Path, at: int | None, error: BaseException | None) -> None:
        self.folder, self.at, self.error = str(folder), at, error
        self.writes = 0
        self._counting = threading.Lock()

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _CHANGES or (event == "open" and not (arguments[2] or 0) & _WRITING):
            return
        place = arguments[0]
        # Paths that aren't whole are of entries of an open folder, as when a tree is removed.
        if isinstance(place, str | bytes | os.PathLike):
            name = os.fsdecode(place)
            if not os.path.isabs(name) or name.startswith(self.folder):
                self.write()

    def write(self) -> None:
        with self._counting:
            self.writes += 1
            due = self.writes == self.at or (isinstance(self.error, Killed) and self.writes >= (self.at or 0))
        if due and self.error:
            raise self.error


_active: list[Disk] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _active:
        _active[-1].audit(event, arguments)


@cache
def _listen() -> None:
    # Once: a hook can't be taken off again.
    sys.addaudithook(_hook)


@contextmanager
def failing(folder: Path, at: int | None = None, error: BaseException | None = None) -> Iterator[Disk]:
    """Let the `at`-th write below `folder` raise `error`; without one, count them."""
    _listen()
    disk, sync = Disk(folder, at, error), os.fsync

    def synced(file: int) -> None:
        disk.write()
        sync(file)

    os.fsync = synced
    _active.append(disk)
    try:
        yield disk
    finally:
        _active.remove(disk)
        os.fsync = sync
