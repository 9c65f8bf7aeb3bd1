"""Make results in staging folders, move them to their path, and lock them for writing.

Foreign files are never removed. Staging folders have unique names. A result is overwritten only if hydrascope wrote all
of its files, and it is deleted only after its replacement is complete and on the disk.
"""

import errno
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

#: The beginning of the names of staging folders. The owner file in each holds the name of its result; a process that
#: needs the folder locks this file.
STAGING_PREFIX, OWNER_FILE = ".hydrascope-", "of"
#: The new result in a staging folder, and the old one that it replaces.
_NEW, _OLD = "new", "old"
#: All other names in a staging folder: the two results, and the files that workers share (`coordination.py`).
_INSIDE = re.compile(rf"{_NEW}|{_OLD}|agreed|agreeing|clean|turn|(clean-)?\d+")

#: All files of a result, by their paths in it; zarr first writes each file under a name that ends in `partial`.
_NAMES = "|".join(sorted(MEASURED_VARIABLES | STATIC_VARIABLES))
_PARTIAL = r"\.[0-9a-f]{32}\.partial"
_OURS = re.compile(rf"((checksums|checksums/\d+|{_NAMES})/)?zarr(\.json|{_PARTIAL})|({_NAMES})/c(/\d+)+({_PARTIAL})?")


def require_only_ours(path: Path) -> None:
    """Make sure that hydrascope wrote all files at `path`, before they are deleted.

    Raises:
        HydrascopeError: the folder holds other files or links.
    """
    with disk(f"cannot overwrite {path}"):
        others = [name for name in _inside(path) if not _OURS.fullmatch(name)]
    if others:
        more = f" and {len(others) - 3:,} more" if len(others) > 3 else ""
        raise HydrascopeError(
            f"cannot overwrite {path}: it holds files that hydrascope did not write ({', '.join(others[:3])}{more}): "
            "move them away, or choose another path"
        )


def _inside(folder: Path) -> list[str]:
    """Return all files and links in a folder, by their paths in it."""

    def fail(error: OSError) -> None:
        raise error

    paths = []
    for parent, folders, files in os.walk(folder, onerror=fail):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        paths += [Path(parent, name).relative_to(folder).as_posix() for name in (*files, *links)]
    return sorted(paths)


def lock(path: Path, file: str, *, shared: bool = False) -> IO[bytes] | None:
    """Lock `path` for one writer until the returned file is closed or the process ends.

    Args:
        path: the folder of the result.
        file: the file to lock, by its path in the folder.
        shared: whether to share the lock with other writers that ask for the same.

    Returns:
        The locked file. None if the system has no locks (Windows, some network file systems), or the file is missing or
        may not be written to.

    Raises:
        HydrascopeError: another run has the lock.
    """
    if fcntl is None:
        return None
    try:
        opened: IO[bytes] = (path / file).open("rb+")
    except OSError:
        return None
    try:
        fcntl.flock(opened, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        # The file may have been replaced before it was locked.
        locked = os.path.samestat(os.fstat(opened.fileno()), (path / file).stat())
    except (BlockingIOError, FileNotFoundError):
        locked = False
    except OSError:
        opened.close()
        return None
    if not locked:
        opened.close()
        raise _busy(path)
    return opened


def _busy(path: Path) -> HydrascopeError:
    return HydrascopeError(f"another run writes to {path}: let it end, or choose another path")


@contextmanager
def replace_atomically(path: Path, file: str, *, overwrite: bool) -> Iterator[Path]:
    """Yield a path for a new folder, then move the folder to `path` and delete the old one.

    The caller makes the new folder and flushes it to the disk.

    Args:
        path: the path of the result.
        file: the file in the old folder that a run locks while it writes there.
        overwrite: whether something may be at `path`.

    Raises:
        HydrascopeError: something is at `path` that is not to be overwritten, or that holds foreign files; or another
            run writes to it or replaces it.
        OSError: the disk refuses. Whatever was at `path` stays, and the staging folder is removed.
    """
    make_folders(path.parent)
    staging = Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=path.parent))
    try:
        (staging / OWNER_FILE).write_bytes(name_of(path))
        # The owner must be on the disk before anything else is in the folder.
        sync_file(staging / OWNER_FILE)
        sync_folder(staging)
        sync_folder(path.parent)
        with lock(staging, OWNER_FILE) or nullcontext():
            yield staging / _NEW
            if path.exists() and not overwrite:
                raise HydrascopeError(f"{path} exists: choose another path")
            try:
                with lock(path, file) or nullcontext(), _sole_replacement(path):
                    if path.exists():
                        require_only_ours(path)
                        path.rename(staging / _OLD)
                    (staging / _NEW).rename(path)
                try:
                    # The new result must be on the disk before the old one is deleted.
                    sync_folder(path.parent)
                except OSError:
                    path.rename(staging / _NEW)
                    raise
            finally:
                _put_back(staging, path)
    finally:
        with suppress(OSError):
            clear(staging, path)


@contextmanager
def _sole_replacement(path: Path) -> Iterator[None]:
    """Name another run that replaces `path` between two steps of this replacement."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY):
            raise _busy(path) from error
        raise


def clear(staging: Path, path: Path) -> None:
    """Remove a staging folder of the result at `path`.

    Raises:
        OSError: the disk refuses.
    """
    if (staging / _OLD).exists() and not path.exists():
        return  # The old result could not be put back, and is the only one.
    for inside in filter(lambda inside: _INSIDE.fullmatch(inside.name), sorted(staging.iterdir())):
        if inside.is_dir():
            shutil.rmtree(inside)
        else:
            inside.unlink()
    # The owner file goes last, so that a crash leaves no folder without it.
    sync_folder(staging)
    (staging / OWNER_FILE).unlink(missing_ok=True)
    staging.rmdir()


def _put_back(staging: Path, path: Path) -> None:
    if (staging / _OLD).exists() and not path.exists():
        (staging / _OLD).rename(path)
        sync_folder(path.parent)


def recover_staging(path: Path) -> None:
    """Remove the staging folders that killed runs left beside `path`.

    If a run was killed after it moved the old result away, the old result is put back. If the system has no locks,
    which tell a killed run from a live one, everything stays.
    """
    with suppress(OSError):
        for staging in path.parent.glob(f"{STAGING_PREFIX}*"):
            # The folder may be foreign, or belong to a live run.
            with suppress(OSError, HydrascopeError):
                if not (staging / OWNER_FILE).exists():
                    staging.rmdir()
                    continue
                owner = (staging / OWNER_FILE).read_bytes().strip(b"\0")
                # An empty owner, or zeros after a power failure: the run ended before anything was made.
                if owner in (b"", name_of(path)) and (locked := lock(staging, OWNER_FILE)):
                    with locked:
                        _put_back(staging, path)
                        clear(staging, path)
