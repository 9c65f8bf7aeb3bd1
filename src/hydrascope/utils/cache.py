"""The folder of downloaded files: `$XDG_CACHE_HOME/hydrascope`, or `~/.cache/hydrascope`."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def cache_folder() -> Path:
    """Return the folder of downloaded files, which may not exist yet."""
    home = os.path.expanduser("~")
    if home == "~":  # a user without a folder, as in a container: nothing is found, and writing fails
        home = "/nonexistent"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path(home, ".cache")) / "hydrascope"


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that appears at `path` at once, when it is complete, or not at all.

        with whole_file(cache_folder() / "known_1000.json") as file:
            file.write(data)

    Raises:
        OSError: the file can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
