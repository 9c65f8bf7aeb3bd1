"""Paths of results, as users give them."""

import os
from pathlib import Path

from hydrascope.utils.disk_errors import reason
from hydrascope.utils.errors import HydrascopeError


def resolve_path(path: str | Path) -> Path:
    """`path` as it is meant: `~` is the user's home, and a symbolic link stands for what it points to.

    Raises:
        HydrascopeError: it can't be a path here, or what it leads through may not be entered.
    """
    try:
        found = Path(path).expanduser().resolve()
        found.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise HydrascopeError(f"cannot use {path} ({reason(error)}): choose another place") from error
    return found


def require_room(path: Path) -> None:
    """Find out before anything is computed whether a folder can be made at `path`.

    Raises:
        HydrascopeError: its nearest parent that exists is no folder, or may not be written to.
    """
    parent = next(parent for parent in path.parents if parent.exists())
    if not parent.is_dir():
        raise HydrascopeError(f"cannot create {path} ({parent} is no folder): choose another place")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise HydrascopeError(f"cannot create {path} ({parent} may not be written to): choose another place")


def name_of(path: Path) -> bytes:
    """What `OF` holds."""
    return os.fsencode(path.name)
