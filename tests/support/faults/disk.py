"""A disk that is watched or refuses, or a process that dies, at the n-th time that something in a folder is written.

Everything that changes a file or a folder passes Python's audit events, zarr's writes too: so no write is forgotten.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

_CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class _Watch:
    """Calls `change` before each change below `folder`."""

    def __init__(self, folder: Path, change: Callable[[], object]) -> None:
        self.folder, self.change = str(folder), change

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _CHANGES or (event == "open" and not (arguments[2] or 0) & _WRITING):
            return
        place = arguments[0]
        # Paths that aren't whole are of entries of an open folder, as when a tree is removed.
        if isinstance(place, str | bytes | os.PathLike):
            name = os.fsdecode(place)
            if not os.path.isabs(name) or name.startswith(self.folder):
                self.change()


_active: list[_Watch] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _active:
        _active[-1].audit(event, arguments)


@cache
def _listen() -> None:
    # Once: a hook can't be taken off again.
    sys.addaudithook(_hook)


@contextmanager
def watched(folder: Path, change: Callable[[], object], sync: Callable[[int], object]) -> Iterator[None]:
    """Call `change` before each change below `folder`, and `sync` before each open file, or folder, is synced."""
    _listen()
    watch, synced = _Watch(folder, change), os.fsync

    def syncing(file: int) -> None:
        sync(file)
        synced(file)

    os.fsync = syncing
    _active.append(watch)
    try:
        yield
    finally:
        _active.remove(watch)
        os.fsync = synced


class Killed(BaseException):
    """The process is dead: nothing that it would do on its way out reaches the disk."""


class Disk:
    """Counts writes, and raises `error` at the `at`-th; `Killed` at every one from then on."""

    def __init__(self, at: int | None, error: BaseException | None) -> None:
        self.at, self.error = at, error
        self.writes = 0
        self._counting = threading.Lock()

    def write(self) -> None:
        with self._counting:
            self.writes += 1
            due = self.writes == self.at or (isinstance(self.error, Killed) and self.writes >= (self.at or 0))
        if due and self.error:
            raise self.error


@contextmanager
def failing(folder: Path, at: int | None = None, error: BaseException | None = None) -> Iterator[Disk]:
    """Let the `at`-th write below `folder` raise `error`; without one, count them."""
    disk = Disk(at, error)
    with watched(folder, disk.write, lambda file: disk.write()):
        yield disk
