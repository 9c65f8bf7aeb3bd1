"""A user's files, read only where that ends: a pipe would wait for ever, a device never stop."""

import os
import stat
from errno import EISDIR
from pathlib import Path

from hydrascope.utils.errors import HydrascopeError


def read(path: Path, what: str) -> bytes:
    """All of the file at `path`; `what` it holds is said where it can't be read.

        read(Path("facts.jsonl"), "prompts")

    Raises:
        HydrascopeError: as `require_readable`, or it is larger than memory.
    """
    require_readable(path, what)
    try:
        return path.read_bytes()
    except (OSError, MemoryError) as error:
        raise HydrascopeError(f"cannot read {what} from {path}: {_reason(error)}") from error


def require_readable(path: Path, what: str) -> None:
    """Make sure that `path` is a file, and may be read.

    Raises:
        HydrascopeError: it isn't there, is a folder, pipe or device, or may not be read; the message says which.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
        if not stat.S_ISREG(mode):
            raise HydrascopeError(f"cannot read {what} from {path}: it is a pipe or a device; give a file")
        path.open("rb").close()
    except (OSError, ValueError) as error:  # a name with a null character is a ValueError
        raise HydrascopeError(f"cannot read {what} from {path}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "it is larger than memory"
    return str(getattr(error, "strerror", None) or error)
