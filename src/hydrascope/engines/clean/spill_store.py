"""Keep tensors on disk: in files without a name, or in files that several processes share.

Three kinds of files, each written by one function or class:

- `on_disk`: the clean activations at one site, mapped into memory as they are read;
- `SpillFile`: tensors that are appended, and read back once they are needed;
- `write_shard`: the clean activations of one chunk of prompts, for other processes to read.
"""

import os
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import safetensors
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save
from torch import Tensor

from hydrascope.utils.disk_errors import disk

#: Allocates `[row, columns]` activations of one site, to be filled.
Allocator = Callable[[int, int, torch.dtype], Float[Tensor, "row columns"]]

ROOM = "make room, or measure fewer prompts"

#: The clean activations of some prompts, by name.
Shard = dict[str, Tensor]

#: How the name of a file begins until the name is removed.
_PREFIX = ".hydrascope-"


def in_memory(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """Allocate `[row, columns]` in memory."""
    return torch.empty(rows, columns, dtype=dtype)


def on_disk(folder: Path) -> Allocator:
    """Return an allocator of nameless files in `folder`, which end with the process.

    Raises:
        HydrascopeError: the disk refuses; raised by the allocator.
    """

    def allocate(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        size = rows * columns
        with (
            disk(f"cannot keep clean values in {folder}", ROOM),
            tempfile.NamedTemporaryFile(prefix=_PREFIX, dir=folder) as file,
        ):
            # All of it now: where a disk is full later, writing to what is mapped ends the process.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, max(size * dtype.itemsize, 1))
            return torch.from_file(file.name, shared=True, size=size, dtype=dtype).view(rows, columns)

    # Windows maps no file that has no name.
    return in_memory if os.name == "nt" else allocate


class SpillFile:
    """Append tensors to a nameless file of a folder, and read them back.

    The file is not seen in the folder, and ends with this object.

    >>> file = SpillFile(Path("/tmp"))
    >>> start = file.append([torch.tensor([1.0, 2.0]), torch.tensor([3])])
    >>> file.read(start, [torch.empty(2, device="meta"), torch.empty(1, dtype=torch.long, device="meta")])
    [tensor([1., 2.]), tensor([3])]
    """

    def __init__(self, folder: Path) -> None:
        """Open the file.

        Raises:
            OSError: the disk refuses.
        """
        self._file = tempfile.TemporaryFile(prefix=_PREFIX, dir=folder)  # noqa: SIM115
        weakref.finalize(self, self._file.close)

    def append(self, tensors: Sequence[Tensor]) -> int:
        """Write tensors at the end of the file, and return the offset of the first.

        Tensors have no gaps in memory.

        Raises:
            OSError: the disk refuses.
        """
        start = self._file.seek(0, os.SEEK_END)
        for tensor in tensors:
            self._file.write(_bytes(tensor))
        self._file.flush()
        return start

    def read(self, start: int, like: Sequence[Tensor]) -> list[Tensor]:
        """Read tensors from offset `start` on, with the shapes, strides and dtypes of `like`.

        Raises:
            OSError: the file cannot be read, or ends too early.
        """
        tensors = [torch.empty_strided(each.shape, each.stride(), dtype=each.dtype) for each in like]
        self._file.seek(start)
        for tensor in tensors:
            if self._file.readinto(_bytes(tensor)) != tensor.nbytes:
                raise OSError("the file ends too early")
        return tensors


def _bytes(tensor: Tensor) -> memoryview:
    """View the memory of a tensor without gaps as bytes."""
    return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).numpy().data


def write_shard(folder: Path, start: int, shard: Shard) -> None:
    """Write the shard of the chunk that begins at prompt `start`, for other processes to read.

    Raises:
        OSError: the disk refuses.
    """
    folder.mkdir(exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        file.write(save(shard))
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).rename(_shard_path(folder, start))


def is_written(folder: Path, start: int) -> bool:
    """Tell whether the shard of the chunk that begins at prompt `start` is written."""
    return _shard_path(folder, start).exists()


def read_shard(folder: Path, start: int) -> Shard:
    """Read the shard that `write_shard` wrote.

    Raises:
        OSError: it can't be read.
    """
    try:
        return load_file(_shard_path(folder, start))
    except safetensors.SafetensorError as error:
        raise OSError(f"the clean values of the prompts from {start} on are damaged") from error


def _shard_path(folder: Path, start: int) -> Path:
    return folder / f"{start}.safetensors"
