"""Where clean values are kept: in memory, in files that are mapped into it, or block by block in files to be shared."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import safetensors
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save
from torch import Tensor

from hydrascope.utils.disk_errors import disk

#: Makes room for the `[row, columns]` values at a site, to be written.
Allocator = Callable[[int, int, torch.dtype], Float[Tensor, "row columns"]]

ROOM = "make room, or measure fewer prompts"

#: What the clean runs of some prompts leave, by name.
Shard = dict[str, Tensor]


def in_memory(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """Room for values that fit into memory."""
    return torch.empty(rows, columns, dtype=dtype)


def on_disk(folder: Path) -> Allocator:
    """Room in files of `folder` that have no name any more: nothing is seen there, or outlives the process.

    Raises:
        HydrascopeError: the disk refuses; when values are kept.
    """

    def keep(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        size = rows * columns
        with (
            disk(f"cannot keep clean values in {folder}", ROOM),
            tempfile.NamedTemporaryFile(prefix=".hydrascope-", dir=folder) as file,
        ):
            # All of it now: where a disk is full later, writing to what is mapped ends the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, max(size * dtype.itemsize, 1))
            return torch.from_file(file.name, shared=True, size=size, dtype=dtype).view(rows, columns)

    # Windows maps no file that has no name.
    return in_memory if os.name == "nt" else keep


def write_shard(folder: Path, start: int, part: Shard) -> None:
    """Keep what the prompts from `start` on leave where other processes, of other machines too, can read it.

    Raises:
        OSError: the disk refuses.
    """
    folder.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        file.write(save(part))
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).rename(_file(folder, start))


def is_written(folder: Path, start: int) -> bool:
    """Whether the part from `start` on is there."""
    return _file(folder, start).exists()


def read_shard(folder: Path, start: int) -> Shard:
    """What `write_shard` kept.

    Raises:
        OSError: it can't be read.
    """
    try:
        return load_file(_file(folder, start))
    except safetensors.SafetensorError as error:
        raise OSError(f"the clean values of the prompts from {start} on are damaged") from error


def _file(folder: Path, start: int) -> Path:
    return folder / f"{start}.safetensors"
