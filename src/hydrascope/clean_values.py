"""Where clean values are kept: in memory, in files that are mapped into it, or in a folder that processes share."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hydrascope.components import Component
from hydrascope.places import disk

#: Makes room for the `[row, columns]` values at a site, to be written.
Keep = Callable[[Component, int, int, torch.dtype], Float[Tensor, "row columns"]]


def in_memory(site: Component, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """Room for values that fit into memory."""
    return torch.empty(rows, columns, dtype=dtype)


def on_disk(folder: Path) -> Keep:
    """Room in files of `folder` that have no name any more: nothing is seen there, or outlives the process.

    Raises:
        HydrascopeError: the disk refuses; when values are kept.
    """

    def keep(site: Component, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        with disk(*_failure(folder)), tempfile.NamedTemporaryFile(prefix=".hydrascope-", dir=folder) as file:
            return _mapped(Path(file.name), rows, columns, dtype)

    # Windows maps no file that has no name.
    return in_memory if os.name == "nt" else keep


def in_folder(folder: Path) -> Keep:
    """Room in files of `folder` that other processes `read`.

    Raises:
        HydrascopeError: the disk refuses; when values are kept.
    """

    def keep(site: Component, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
        with disk(*_failure(folder)):
            folder.mkdir(exist_ok=True)
            return _mapped(folder / str(site), rows, columns, dtype)

    return keep


def read(folder: Path, site: Component, rows: int, columns: int, dtype: torch.dtype) -> Float[Tensor, "row columns"]:
    """The values at `site` that a process kept `in_folder`, mapped into memory as they are read.

    Raises:
        HydrascopeError: they aren't all there.
    """
    path, size = folder / str(site), rows * columns
    with disk(f"cannot read the clean values in {folder}", "start again"):
        if path.stat().st_size < size * dtype.itemsize:
            raise OSError(f"{path.name} is cut short")
        return torch.from_file(str(path), shared=False, size=size, dtype=dtype).view(rows, columns)


def write_tokens(folder: Path, tokens: np.ndarray) -> None:
    """Keep a token a prompt beside the values in `folder`.

    Raises:
        HydrascopeError: the disk refuses.
    """
    with disk(*_failure(folder)):
        folder.mkdir(exist_ok=True)
        np.save(folder / _TOKENS, tokens)


def read_tokens(folder: Path) -> np.ndarray:
    """The token a prompt that a process kept in `folder`.

    Raises:
        HydrascopeError: they aren't there.
    """
    with disk(f"cannot read the clean values in {folder}", "start again"):
        return np.asarray(np.load(folder / _TOKENS, allow_pickle=False))


_TOKENS = "likeliest.npy"


def _failure(folder: Path) -> tuple[str, str]:
    return f"cannot keep clean values in {folder}", "make room, or measure fewer prompts"


def _mapped(path: Path, rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    size = rows * columns
    # All of it now: where a disk is full later, writing to what is mapped ends the process.
    with path.open("ab") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, max(size * dtype.itemsize, 1))
    return torch.from_file(str(path), shared=True, size=size, dtype=dtype).view(rows, columns)
