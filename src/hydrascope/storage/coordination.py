"""Several processes on one result: which of them measures which block, and what they share while any of them lives.

Beside the result stands their room, a folder with a file to lock for each thing that only one of them does at a time.
The locks are the operating system's: whatever a worker held that died is free for the others. The last one to leave
removes the room; where all were killed, the next run at the place does.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hydrascope.storage.paths import name_of
from hydrascope.storage.staging import OF, ROOM, clear
from hydrascope.utils.disk_errors import disk
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.fsync import make_folders, sync_folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: How long to wait, in seconds, before looking again whether a block is done, or free.
_PATIENCE = 0.5


@dataclass(frozen=True)
class Workers:
    """The workers on a result, to one of them.

    Attributes:
        path: the result's.
        room: their folder.
    """

    path: Path
    room: Path

    @property
    def clean(self) -> Path:
        """The folder of the clean values that each leaves for all."""
        return self.room / "clean"

    def agree_on(self, mine: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """What the first of the workers, in its turn, has said that all do: of that one, what is `mine`."""
        file = self.room / "agreed"
        with disk(f"cannot work together with others on {self.path}"):
            if not file.exists():
                partial = self.room / "agreeing"
                # Numbers of NumPy, too, which are settings where users give them.
                partial.write_text(json.dumps(mine(), default=lambda value: value.item()))
                partial.rename(file)
            return dict(json.loads(file.read_text()))

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Be the only one of the workers in here; others are waited for."""
        with self._file("turn") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Whether what is named so is this worker's, in here; another's is not waited for."""
        with self._file(name) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def share(self, chunks: Iterable[range], is_done: Callable[[range], bool], work: str = "") -> Iterator[range]:
        """Those of `blocks` that this worker is to do, each its own until the next is asked for.

        What another does is waited for, and taken over if that one dies.

        Args:
            is_done: whether a block needs no doing any more.
            work: what is done with them, where there are several things to do.
        """
        left = list(chunks)
        while left:
            before = len(left)
            for chunk in list(left):
                with self.claim(f"{work}{chunk.start}") as ours:
                    if ours:
                        left.remove(chunk)
                        if not is_done(chunk):
                            yield chunk
            if len(left) == before:
                time.sleep(_PATIENCE)

    def _file(self, name: str) -> IO[bytes]:
        with disk(f"cannot work together with others on {self.path}"):
            return (self.room / name).open("ab")


@contextmanager
def join_workers(path: Path) -> Iterator[Workers]:
    """Be one of the workers on the result at `path`, whether it is there already or not.

    Raises:
        HydrascopeError: there are no locks, by which to share the work, or no folder can be made beside the result.
    """
    with disk(f"cannot work together with others on {path}"):
        make_folders(path.parent)
        # Of a length that any name leaves room for.
        room = path.parent / f"{ROOM}{hashlib.sha256(name_of(path)).hexdigest()[:16]}"
        held = lock_room(room, path)
    try:
        yield Workers(path, room)
    finally:
        with held, suppress(OSError):
            # Refused while another is there.
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            clear(room, path)


def lock_room(room: Path, path: Path) -> IO[bytes]:
    """A lock, shared by all workers, on the room that stands while any of them holds it."""
    if fcntl is None:
        raise HydrascopeError("workers share a result by locks on files, which this system has not: use one process")
    while True:
        with suppress(FileExistsError):
            room.mkdir()
        try:
            held = os.fdopen(os.open(room / OF, os.O_RDWR | os.O_CREAT, 0o666), "rb+")
        except FileNotFoundError:
            continue  # The last one has left, and the room with it.
        try:
            fcntl.flock(held, fcntl.LOCK_SH)
            if os.path.samestat(os.fstat(held.fileno()), (room / OF).stat()):
                if held.read() != name_of(path):
                    os.pwrite(held.fileno(), name_of(path), 0)
                    # Whose the room is, and where it is, before there is anything in it.
                    os.fsync(held.fileno())
                    sync_folder(room)
                    sync_folder(room.parent)
                return held
        except FileNotFoundError:
            pass
        except BaseException:
            held.close()
            raise
        held.close()
