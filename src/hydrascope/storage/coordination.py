"""Let several processes measure one result, each its own chunks.

The workers share a folder beside the result, their *room*. It has a file to lock for each task that only one worker may
do at a time. The locks are the operating system's, so that a worker's locks are free once it dies. The last worker to
leave removes the room; if all were killed, the next run at that path does.
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
from hydrascope.storage.staging import OWNER_FILE, STAGING_PREFIX, clear
from hydrascope.utils.disk_errors import disk
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.fsync import make_folders, sync_folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: Seconds to wait before checking again whether another worker's chunk is done or free.
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Workers:
    """The workers on one result, as seen by one of them.

    Attributes:
        path: the path of the result.
        room: the folder that the workers share.
    """

    path: Path
    room: Path

    @property
    def clean(self) -> Path:
        """The folder of clean activations that workers share."""
        return self.room / "clean"

    def agree_on(self, mine: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Return the settings of the first worker, which all others adopt.

        It must be called within `exclusive`.

        Args:
            mine: a function that returns this worker's settings; it is called only by the first worker.
        """
        file = self.room / "agreed"
        with disk(f"cannot work together with others on {self.path}"):
            if not file.exists():
                partial = self.room / "agreeing"
                # Users may give NumPy numbers as settings.
                partial.write_text(json.dumps(mine(), default=lambda value: value.item()))
                partial.rename(file)
            return dict(json.loads(file.read_text()))

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Wait until no other worker is in this context, then be the only one."""
        with self._file("turn") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Try to claim a task within the context; yield whether no other worker has it."""
        with self._file(name) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def share(self, chunks: Iterable[range], is_done: Callable[[range], bool], work: str = "") -> Iterator[range]:
        """Yield the chunks that this worker must do.

        A chunk is claimed until the next one is asked for. Chunks of other workers are waited for, and taken over if
        their worker dies.

        Args:
            chunks: the chunks that aren't done.
            is_done: a function that tells whether a chunk has been done meanwhile.
            work: a prefix for the names of claims, if the same chunks are shared for several tasks.
        """
        remaining = list(chunks)
        while remaining:
            count = len(remaining)
            for chunk in list(remaining):
                with self.claim(f"{work}{chunk.start}") as claimed:
                    if claimed:
                        remaining.remove(chunk)
                        if not is_done(chunk):
                            yield chunk
            if len(remaining) == count:
                time.sleep(_POLL_SECONDS)

    def _file(self, name: str) -> IO[bytes]:
        with disk(f"cannot work together with others on {self.path}"):
            return (self.room / name).open("ab")


@contextmanager
def join_workers(path: Path) -> Iterator[Workers]:
    """Join the workers on the result at `path`, which needn't exist yet.

    Leaving the context leaves the workers.

    Raises:
        HydrascopeError: this system has no file locks, or no folder can be made beside the result.
    """
    with disk(f"cannot work together with others on {path}"):
        make_folders(path.parent)
        # A hash, since a longer name might exceed the limit of the file system.
        room = path.parent / f"{STAGING_PREFIX}{hashlib.sha256(name_of(path)).hexdigest()[:16]}"
        owner = lock_room(room, path)
    try:
        yield Workers(path, room)
    finally:
        with owner, suppress(OSError):
            # An OSError while another worker holds the lock.
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            clear(room, path)


def lock_room(room: Path, path: Path) -> IO[bytes]:
    """Make the workers' room if needed, and return a lock on it that all workers share."""
    if fcntl is None:
        raise HydrascopeError("workers share a result by file locks, which this system has not: use one process")
    while True:
        with suppress(FileExistsError):
            room.mkdir()
        try:
            owner = os.fdopen(os.open(room / OWNER_FILE, os.O_RDWR | os.O_CREAT, 0o666), "rb+")
        except FileNotFoundError:
            continue  # The last worker has just removed the room.
        try:
            fcntl.flock(owner, fcntl.LOCK_SH)
            if os.path.samestat(os.fstat(owner.fileno()), (room / OWNER_FILE).stat()):
                if owner.read() != name_of(path):
                    os.pwrite(owner.fileno(), name_of(path), 0)
                    # The owner must be on the disk before anything else is in the room.
                    os.fsync(owner.fileno())
                    sync_folder(room)
                    sync_folder(room.parent)
                return owner
        except FileNotFoundError:
            pass
        except BaseException:
            owner.close()
            raise
        owner.close()
