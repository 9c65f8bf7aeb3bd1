"""Several processes on one result: which of them measures which block, and what they share while any of them lives.

Beside the result stands their room, a folder with a file to lock for each thing that only one of them does at a time.
The locks are the operating system's: whatever a worker held that died is free for the others. The last one to leave
removes the room; where all were killed, the next run at the place does.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hydrascope.durable import make_folders, sync_folder
from hydrascope.errors import HydrascopeError
from hydrascope.places import OF, ROOM, clear, disk, name_of

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_OTHERS_DO = "another worker prepares what all of them need: waiting for it"


@dataclass(frozen=True)
class Workers:
    """The workers on a result, to one of them.

    Attributes:
        path: the result's.
        room: their folder.
        say: is told what this one waits for.
    """

    path: Path
    room: Path
    say: Callable[[str], object]

    @property
    def clean(self) -> Path:
        """The folder of the clean values that all of them read, once there is one."""
        return self.room / "clean"

    @contextmanager
    def preparing(self) -> Iterator[Path]:
        """A folder that becomes `clean` when all has been written into it."""
        making = self.room / "making"
        yield making
        with disk(f"cannot keep clean values beside {self.path}"):
            making.rename(self.clean)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Be the only one of the workers in here; others are waited for."""
        with self._file("turn") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not self.clean.exists():
                    self.say(_OTHERS_DO)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def claim(self, block: int) -> Iterator[bool]:
        """Whether the block from the prompt `block` on is this worker's, in here; another's is not waited for."""
        with self._file(str(block)) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def _file(self, name: str) -> IO[bytes]:
        with disk(f"cannot work together with others on {self.path}"):
            return (self.room / name).open("ab")


@contextmanager
def at_work(path: Path, say: Callable[[str], object]) -> Iterator[Workers]:
    """Be one of the workers on the result at `path`, whether it is there already or not.

    Args:
        say: is told what is waited for.

    Raises:
        HydrascopeError: there are no locks, by which to share the work, or no folder can be made beside the result.
    """
    with disk(f"cannot work together with others on {path}"):
        make_folders(path.parent)
        # Of a length that any name leaves room for.
        room = path.parent / f"{ROOM}{hashlib.sha256(name_of(path)).hexdigest()[:16]}"
        held = _entered(room, path)
    try:
        yield Workers(path, room, say)
    finally:
        with held, suppress(OSError):
            # Refused while another is there.
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            clear(room, path)


def _entered(room: Path, path: Path) -> IO[bytes]:
    """A lock, shared by all workers, on the room that stands while any of them holds it."""
    if fcntl is None:
        raise HydrascopeError("workers share a result by locks on files, which this system has not: use one process")
    while True:
        room.mkdir(exist_ok=True)
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
