"""Resolve and check paths of results."""

import os
import re
from pathlib import Path

from hydrascope.utils.disk_errors import reason
from hydrascope.utils.errors import HydrascopeError

#: The start of an address; a `Path` has lost one of its slashes. Windows' drives have one letter.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def is_address(path: str | Path) -> bool:
    """Whether a path is the address of another place, as `s3://bucket/run.zarr`.

    >>> is_address("s3://bucket/run.zarr"), is_address("runs/a.zarr")
    (True, False)
    """
    return bool(_ADDRESS.match(str(path)))


def resolve_path(path: str | Path) -> Path:
    """Return an absolute path; expand `~` and follow symbolic links.

    Raises:
        HydrascopeError: the path is invalid or an address, or a folder on it may not be entered.
    """
    if is_address(path):
        raise HydrascopeError(
            f"{path} is an address, and hydrascope reads and writes local folders alone: copy the folder, with rclone, "
            "aws s3 sync or gcloud storage cp"
        )
    try:
        resolved = Path(path).expanduser().resolve()
        resolved.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise HydrascopeError(f"cannot use {path} ({reason(error)}): choose another path") from error
    return resolved


def require_room(path: Path) -> None:
    """Check before anything is computed that a folder can be made at `path`.

    Raises:
        HydrascopeError: the nearest existing parent is no folder, or may not be written to; or the umask forbids the
            user's own new folders.
    """
    umask = os.umask(0o077)
    os.umask(umask)
    if umask & 0o700 and getattr(os, "geteuid", lambda: 0)():  # root may do everything
        raise HydrascopeError(
            f"cannot create {path}: the umask {umask:03o} takes your own rights from all that you create: set another "
            "(umask 022)"
        )
    parent = next(parent for parent in path.parents if parent.exists())
    if not parent.is_dir():
        raise HydrascopeError(f"cannot create {path} ({parent} is no folder): choose another path")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise HydrascopeError(f"cannot create {path} ({parent} may not be written to): choose another path")


def name_of(path: Path) -> bytes:
    """Return the content of a result's `staging.OWNER_FILE`: its name."""
    return os.fsencode(path.name)
