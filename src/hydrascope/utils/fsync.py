"""Flush files, and the folders that list them, to the disk.

After a power failure a synced file is still lost if the folder that lists it was not synced.
"""

import os
from collections.abc import Iterable
from errno import EINVAL
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Flush the list of files in a folder to the disk, but not their contents."""
    if os.name == "nt":
        return  # Windows opens no folders.
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        # Some network file systems don't support this.
        if error.errno != EINVAL:
            raise
    finally:
        os.close(opened)


def sync_names(folder: Path, names: Iterable[str]) -> None:
    """Flush all folders between `folder` and some files, given by their paths in `folder`."""
    for parent in sorted({parent for name in names for parent in Path(name).parents}):
        sync_folder(folder / parent)


def sync_file(path: Path) -> None:
    """Flush the content of a file to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def make_folders(folder: Path) -> None:
    """Make a folder and its missing parents, and flush them to the disk."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)
