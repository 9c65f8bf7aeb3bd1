"""Results on disk, as they are written: a block of prompts at a time, by one run, whole at every instant.

The attribute `measured` counts the prompts whose block is complete. It is raised, by replacing one file, only after
everything of a block and its checksums have been written: whatever ends a run, what counts as measured is whole.

A result knows its run, by an id that was drawn when it was made. Every write looks first whether the result still is
that run's; and a run that lives holds a lock, so that a second one is refused at once.
"""

import uuid
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import xarray as xr
from zarr.codecs import ZstdCodec

from hydrascope import manifest
from hydrascope.errors import HydrascopeError
from hydrascope.places import disk, lock, reason, staged
from hydrascope.store import UnreadableError, blocks, known_files, read_attributes, read_root
from hydrascope.variables import FORMAT, described


@dataclass
class Writer:
    """The one run that writes to the result at `path`; a context that ends with its being that.

    Attributes:
        attributes: of the result, `run` among them.
        damaged: the first prompts of measured blocks that aren't as they were written.
        held: its lock, where there are locks.
    """

    path: Path
    attributes: dict[str, Any]
    damaged: list[int]
    held: IO[bytes] | None

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *error: object) -> None:
        if self.held:
            self.held.close()

    def write(self, start: int, block: xr.Dataset, attributes: Mapping[str, Any]) -> None:
        """Write the measured variables of the prompts from `start` on, then count them as measured.

        Args:
            attributes: of the result, changed in the same instant.

        Raises:
            HydrascopeError: the disk refuses, or another run writes here; what was measured before stays.
        """
        measured = self.attributes["measured"]
        with disk(f"cannot write to {self.path}", f"{measured:,} prompts are kept: make room and resume"):
            self._root()
            block.to_zarr(
                self.path,
                region={"prompt": slice(start, start + block.sizes["prompt"])},
                write_empty_chunks=True,
                consolidated=False,
            )
            number = start // self.attributes["block_size"]
            files = [_chunk(name, variable.dims, number) for name, variable in block.data_vars.items()]
            manifest.write_listing(self.path, manifest.listing_of(start), self.attributes["run"], files)
            root = self._root()
            changed = {**attributes, "measured": max(measured, start + block.sizes["prompt"])}
            root["attributes"] |= changed
            manifest.replace(self.path, manifest.ROOT, manifest.sealed(root))
        self.attributes |= changed

    def _root(self) -> dict[str, Any]:
        """The result's zarr.json, which must be as this run left it."""
        try:
            root = read_root(self.path)
        except HydrascopeError as error:
            raise HydrascopeError(f"this run ends, since what it writes to changed: {error}") from error
        if any(root["attributes"][name] != self.attributes[name] for name in ("run", "measured")):
            raise HydrascopeError(f"another run writes to {self.path}: this one ends and leaves all to that")
        return root


def _chunk(name: Any, dims: tuple[Any, ...], block: int) -> str:
    return "/".join([name, "c", *(str(block) if dim == "prompt" else "0" for dim in dims)])


def create(
    path: Path,
    known: xr.Dataset,
    empty: Mapping[str, tuple[tuple[str, ...], str]],
    sizes: Mapping[str, int],
    block: int,
    *,
    overwrite: bool = False,
) -> Writer:
    """Make an empty result at `path`, with what is `known` before anything is measured.

    Args:
        known: coordinates, attributes, and the variables that are known.
        empty: the dimensions and dtype of the variables that will be measured.
        sizes: the lengths of the dimensions.
        block: how many prompts are written at a time; the length of a chunk.
        overwrite: delete the result that is there, once its successor has been made.

    Raises:
        HydrascopeError: something is there already, another run writes to it, or the disk refuses.
    """
    # Views of one number: the shapes without the memory.
    shapes = {name: [sizes[dim] for dim in dims] for name, (dims, _) in empty.items()}
    variables = {
        name: (dims, np.broadcast_to(_unmeasured(dtype), shapes[name])) for name, (dims, dtype) in empty.items()
    }
    chunks = {
        name: tuple(block if dim == "prompt" else sizes[dim] for dim in dims) for name, (dims, _) in empty.items()
    }
    checked = (ZstdCodec(level=1, checksum=True),)
    run = uuid.uuid4().hex
    attributes = {**known.attrs, "format": FORMAT, "run": run, "block_size": block, "measured": 0}
    # Nobody writes to what is overwritten, until its successor stands.
    replaced = lock(path, manifest.KNOWN_FILES) or nullcontext()
    with (
        replaced,
        disk(f"cannot create {path}"),
        staged(path, overwrite=overwrite) as folder,
        warnings.catch_warnings(),
    ):
        # Consolidated metadata is what xarray.open_zarr looks for first; zarr notes that it is an extension.
        warnings.filterwarnings("ignore", "Consolidated metadata")
        described(xr.Dataset(variables), known.attrs["units"]).to_zarr(
            folder,
            mode="w-",
            encoding={name: {"compressors": checked, "chunks": chunks[name]} for name in empty},
            zarr_format=3,
            write_empty_chunks=False,
        )
        described(known, known.attrs["units"]).assign_attrs(attributes).to_zarr(
            folder,
            mode="a",
            encoding={name: {"compressors": checked} for name in known.variables},
            write_empty_chunks=True,
        )
        root = manifest.parsed(manifest.read(folder, manifest.ROOT))
        files = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
        manifest.write_listing(folder, manifest.KNOWN_FILES, run, set(files) - {manifest.ROOT})
        manifest.replace(folder, manifest.ROOT, manifest.sealed(root))
    return Writer(path, root["attributes"], [], lock(path, manifest.KNOWN_FILES))


def _unmeasured(dtype: str) -> np.generic:
    kind = np.dtype(dtype)
    return kind.type(0 if kind.kind == "i" else np.nan)


def resume(path: Path) -> Writer:
    """Go on with the result at `path`: all of it is read, and compared with what was written.

    Raises:
        HydrascopeError: another run writes to it, or what was known before anything was measured is damaged.
    """
    held = lock(path, manifest.KNOWN_FILES)
    try:
        attributes = read_attributes(path)
        _require_known(path, known_files(path, attributes))
        damaged = [start for start in blocks(attributes) if _damaged(path, start, attributes["run"])]
        return Writer(path, attributes, damaged, held)
    except BaseException:
        if held:
            held.close()
        raise


def _require_known(path: Path, known: Mapping[str, str]) -> None:
    try:
        manifest.require(path, known)
    except (manifest.DamageError, OSError) as error:
        why = reason(error)
        raise UnreadableError(f"cannot resume {path}, it is damaged ({why}): measure again with overwrite") from error


def _damaged(path: Path, start: int, run: str) -> bool:
    try:
        manifest.require(path, manifest.read_listing(path, manifest.listing_of(start), run))
    except (manifest.DamageError, OSError):
        return True
    return False
