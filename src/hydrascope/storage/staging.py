"""Where results stand: paths made plain once, results made whole beside their place, and one writer at a time.

What isn't ours is never removed: folders that are made for a while have names that nobody else took, an overwritten
result must hold nothing but what hydrascope writes, and it goes only when its successor stands, on the disk.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO

from hydrascope.storage.paths import name_of
from hydrascope.storage.schema import MEASURED_VARIABLES, STATIC_VARIABLES
from hydrascope.utils.disk_errors import disk
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.fsync import make_folders, sync_file, sync_folder

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

#: What folders that are made for a while begin with, and the file in each that holds the name of the result that it is
#: made for; who lives and needs the folder locks that.
ROOM, OF = ".hydrascope-", "of"
#: In those of a result that is being made: that, and the one that it replaces.
_NEW, _OLD = "new", "old"
#: All that is ever in one besides: those two, and what workers on a result share (`workers.py`).
_INSIDE = re.compile(rf"{_NEW}|{_OLD}|agreed|agreeing|clean|turn|(clean-)?\d+")

#: Everything that a run writes, by its path in the result; zarr writes each file under a name ending in `partial`.
_NAMES = "|".join(sorted(MEASURED_VARIABLES | STATIC_VARIABLES))
_PARTIAL = r"\.[0-9a-f]{32}\.partial"
_OURS = re.compile(rf"((checksums|checksums/\d+|{_NAMES})/)?zarr(\.json|{_PARTIAL})|({_NAMES})/c(/\d+)+({_PARTIAL})?")


def require_only_ours(path: Path) -> None:
    """Refuse to delete what hydrascope didn't write.

    Raises:
        HydrascopeError: the result at `path` holds other files or links.
    """
    with disk(f"cannot overwrite {path}"):
        others = [name for name in _inside(path) if not _OURS.fullmatch(name)]
    if others:
        more = f" and {len(others) - 3:,} more" if len(others) > 3 else ""
        raise HydrascopeError(
            f"cannot overwrite {path}: it holds what hydrascope did not write ({', '.join(others[:3])}{more}): move "
            "that away, or choose another place"
        )


def _inside(folder: Path) -> list[str]:
    """All files and links in a folder, by their paths in it."""

    def fail(error: OSError) -> None:
        raise error

    found = []
    for parent, folders, files in os.walk(folder, onerror=fail):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        found += [Path(parent, name).relative_to(folder).as_posix() for name in (*files, *links)]
    return sorted(found)


def lock(path: Path, file: str, *, shared: bool = False) -> IO[bytes] | None:
    """Become the one writer of `path`, until what is returned is closed or the process ends, however it does.

    None where there are no locks (Windows, some network file systems), or no such file that can be written to.

    Args:
        file: what is locked, inside of `path`.
        shared: become one of the writers instead, who have all asked for this.

    Raises:
        HydrascopeError: another run is the writer.
    """
    if fcntl is None:
        return None
    try:
        held: IO[bytes] = (path / file).open("rb+")
    except OSError:
        return None
    try:
        fcntl.flock(held, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        # What was locked may have been replaced meanwhile.
        ours = os.path.samestat(os.fstat(held.fileno()), (path / file).stat())
    except (BlockingIOError, FileNotFoundError):
        ours = False
    except OSError:
        held.close()
        return None
    if not ours:
        held.close()
        raise HydrascopeError(f"another run writes to {path}: let it end, or choose another place")
    return held


@contextmanager
def replace_atomically(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """A folder to be made, and synced, that is moved to `path` when it has been; only then is the result there deleted.

    Raises:
        HydrascopeError: something is at `path`, and isn't to be overwritten, or not only ours.
        OSError: the disk refuses. What stands at `path` stays, and nothing else.
    """
    make_folders(path.parent)
    room = Path(tempfile.mkdtemp(prefix=ROOM, dir=path.parent))
    try:
        (room / OF).write_bytes(name_of(path))
        # Whose the room is, and where it is, before there is anything in it.
        sync_file(room / OF)
        sync_folder(room)
        sync_folder(path.parent)
        with lock(room, OF) or nullcontext():
            yield room / _NEW
            if path.exists():
                if not overwrite:
                    raise HydrascopeError(f"{path} exists: choose another place")
                require_only_ours(path)
            try:
                if path.exists():
                    path.rename(room / _OLD)
                (room / _NEW).rename(path)
                try:
                    # Before the old one goes.
                    sync_folder(path.parent)
                except OSError:
                    path.rename(room / _NEW)
                    raise
            finally:
                _put_back(room, path)
    finally:
        with suppress(OSError):
            clear(room, path)


def clear(room: Path, path: Path) -> None:
    """Remove a folder that was made for the result at `path` for a while.

    Raises:
        OSError: the disk refuses.
    """
    if (room / _OLD).exists() and not path.exists():
        return  # The old result could not be put back, and is all there is.
    for inside in filter(lambda inside: _INSIDE.fullmatch(inside.name), sorted(room.iterdir())):
        if inside.is_dir():
            shutil.rmtree(inside)
        else:
            inside.unlink()
    # Last, so that whose the rest is stays known if this is cut short.
    sync_folder(room)
    (room / OF).unlink(missing_ok=True)
    room.rmdir()


def _put_back(room: Path, path: Path) -> None:
    if (room / _OLD).exists() and not path.exists():
        (room / _OLD).rename(path)
        sync_folder(path.parent)


def recover_staging(path: Path) -> None:
    """Clear what runs that were killed while they made a result at `path` left beside it.

    Where one was killed between moving the old result away and the new one in, the old one comes back. Where there are
    no locks to tell a killed run by, all is left as it is.
    """
    with suppress(OSError):
        for room in path.parent.glob(f"{ROOM}*"):
            # Not ours, or of a run that lives.
            with suppress(OSError, HydrascopeError):
                if not (room / OF).exists():
                    room.rmdir()
                # Empty, or zeros after a power failure: ended before anything was made.
                elif (room / OF).read_bytes().strip(b"\0") in (b"", name_of(path)) and (held := lock(room, OF)):
                    with held:
                        _put_back(room, path)
                        clear(room, path)
