"""What must be on the disk before something else happens: files, and the folders that hold their names.

A file whose content was synced is lost all the same when power fails, if the folder that holds its name was not.
"""

import os
from collections.abc import Iterable
from errno import EINVAL
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """See to it that which files a folder holds is on the disk, and no more than that."""
    if os.name == "nt":
        return  # Windows opens no folders.
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        # Some network file systems have no such thing.
        if error.errno != EINVAL:
            raise
    finally:
        os.close(opened)


def sync_names(folder: Path, names: Iterable[str]) -> None:
    """See to it that files, by their paths in `folder`, can be found from there: all folders on the way to them."""
    for way in sorted({way for name in names for way in Path(name).parents}):
        sync_folder(folder / way)


def sync_file(path: Path) -> None:
    """See to it that a file's content is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def make_folders(folder: Path) -> None:
    """Make a folder and those above it that aren't there, on the disk."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        sync_folder(each.parent)
