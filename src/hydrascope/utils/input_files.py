"""Read a user's files; refuse pipes and devices, which may never end."""

import hashlib
import os
import stat
from errno import EISDIR
from pathlib import Path

from hydrascope.utils.errors import HydrascopeError


def read(path: Path, content: str) -> bytes:
    """Return all bytes of a file.

        read(Path("facts.jsonl"), "prompts")

    Args:
        content: a noun for the content of the file, named in error messages.

    Raises:
        HydrascopeError: the file can't be read (`require_readable`), or is larger than memory.
    """
    require_readable(path, content)
    try:
        return path.read_bytes()
    except (OSError, MemoryError) as error:
        raise HydrascopeError(f"cannot read {content} from {path}: {_reason(error)}") from error


def require_readable(path: Path, content: str) -> None:
    """Make sure that `path` is a file that may be read.

    Raises:
        HydrascopeError: it is missing, is a folder, a pipe or a device, or may not be read; the message says which.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
        if not stat.S_ISREG(mode):
            raise HydrascopeError(f"cannot read {content} from {path}: it is a pipe or a device; give a file")
        path.open("rb").close()
    except (OSError, ValueError) as error:  # a name with a null character is a ValueError
        raise HydrascopeError(f"cannot read {content} from {path}: {_reason(error)}") from error


def hash_file(path: Path) -> str:
    """Return `sha256:` and the hash of a file, as `sha256sum` prints it."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "it is larger than memory"
    return str(getattr(error, "strerror", None) or error)
