"""Results on disk, as they are written: a block of prompts at a time, by one run, whole at every instant.

The attribute `measured` counts the first prompts whose blocks are complete. It is raised, by replacing one file, only
after everything of a block and its checksums have been written: whatever ends a run, what counts as measured is whole.

A result knows its run, by an id that was drawn when it was made. Every write looks first whether the result still is
that run's; and a run that lives holds a lock, so that a second one is refused at once. Several processes write to one
result where all of them ask for that (`workers.py`): they measure its blocks in any order.
"""

import uuid
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import xarray as xr
from zarr.codecs import ZstdCodec

from hydrascope.storage import checksums
from hydrascope.storage.coordination import Workers
from hydrascope.storage.reader import UnreadableError, chunks, known_files, read_attributes, read_root
from hydrascope.storage.schema import FORMAT, add_units, texts_to_disk
from hydrascope.storage.staging import lock, replace_atomically
from hydrascope.utils.disk_errors import disk, reason
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.progress import Advance


@dataclass
class Writer:
    """A run that writes to the result at `path`, the one or one of several; a context that ends with its being that.

    Attributes:
        attributes: of the result, `run` among them.
        lock: its lock, where there are locks.
        workers: those that write here, too, where there are others.
    """

    path: Path
    attributes: dict[str, Any]
    lock: IO[bytes] | None
    workers: Workers | None = None

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others write."""
        if self.lock:
            self.lock.close()

    @cached_property
    def unmeasured(self) -> list[range]:
        """The blocks of prompts that aren't measured, or not any more what was written, when this is first asked for.

        All that is written is read for it, and compared with its checksums.
        """
        return [chunk for chunk in chunks(self.attributes) if not self._is_whole(chunk.start)]

    def chunks(self, advance: Advance = lambda count: None, first: Collection[int] = ()) -> Iterator[range]:
        """What is left to measure, block by block: each this run's own until the next is asked for.

        What another worker measures is waited for, to be taken over if that one dies.

        Args:
            advance: is told how many prompts others have measured.
            first: prompts whose blocks a worker measures before others.
        """
        if self.workers is None:
            yield from self.unmeasured
        else:
            damaged = [chunk for chunk in self.unmeasured if self._is_listed(chunk.start)]

            def is_measured(chunk: range) -> bool:
                # Reading all that others have written would take each of many workers long.
                done = self._is_whole(chunk.start) if chunk in damaged else self._is_listed(chunk.start)
                advance(len(chunk) if done else 0)
                return done

            left = sorted(self.unmeasured, key=lambda chunk: not any(prompt in chunk for prompt in first))
            yield from self.workers.share(left, is_measured)
        self.update_measured()

    def write(self, start: int, block: xr.Dataset, how: Mapping[str, Any]) -> None:
        """Write the measured variables of the prompts from `start` on, then count them as measured.

        Args:
            how: they were measured, for the attributes of the result: the last block's stand there, of
                `worst_imbalance` the largest, of `machines` all.

        Raises:
            HydrascopeError: the disk refuses, or another run writes here; what was measured before stays.
        """
        with self._disk():
            self._root()
            block.to_zarr(
                self.path,
                region={"prompt": slice(start, start + block.sizes["prompt"])},
                write_empty_chunks=True,
                consolidated=False,
            )
            number = start // self.attributes["chunk_size"]
            files = [_chunk(name, variable.dims, number) for name, variable in block.data_vars.items()]
            checksums.write_listing(self.path, checksums.listing_of(start), self.attributes["run"], files, how)
        self.update_measured([start])

    def update_measured(self, again: Sequence[int] = ()) -> None:
        """Let `measured` say how many of the first prompts are written, whoever wrote them, and how they were measured.

        Args:
            again: the first prompts of blocks that may have been counted before they were measured now.

        Raises:
            HydrascopeError: as `write`.
        """
        with self._disk(), self.workers.exclusive() if self.workers else nullcontext():
            root = self._root()
            after, counted = root["attributes"], root["attributes"]["measured"]
            for chunk in chunks(root["attributes"]):
                if chunk.start < counted and chunk.start not in again:
                    continue
                listing = self._listing(chunk.start)
                if listing is None:
                    break
                after = {**_with(after, listing.how), "measured": max(counted, chunk.stop)}
            self._replace(after, root)

    @property
    def is_complete(self) -> bool:
        """Whether all prompts are counted as measured."""
        return bool(self.attributes["measured"] == self.attributes["prompt_count"])

    def add(self, attributes: Mapping[str, Any]) -> None:
        """Add attributes to the result.

        Raises:
            HydrascopeError: as `write`.
        """
        with self._disk(), self.workers.exclusive() if self.workers else nullcontext():
            root = self._root()
            self._replace({**root["attributes"], **attributes}, root)

    def _replace(self, after: dict[str, Any], root: dict[str, Any]) -> None:
        """Let the attributes of the result be `after`, where they were those of `root`."""
        if after != root["attributes"]:
            checksums.replace(self.path, checksums.ROOT, checksums.add_checksum({**root, "attributes": after}))
        self.attributes = after

    def _disk(self) -> AbstractContextManager[None]:
        kept = f"{self.attributes['measured']:,} prompts are kept: make room and resume"
        return disk(f"cannot write to {self.path}", kept)

    def _root(self) -> dict[str, Any]:
        """The result's zarr.json, which must be as this run left it, or one of its workers."""
        try:
            root = read_root(self.path)
        except HydrascopeError as error:
            raise HydrascopeError(f"this run ends, since what it writes to changed: {error}") from error
        same = ("run",) if self.workers else ("run", "measured")
        if any(root["attributes"][name] != self.attributes[name] for name in same):
            raise HydrascopeError(f"another run writes to {self.path}: this one ends and leaves all to that")
        return root

    def _listing(self, start: int) -> checksums.Listing | None:
        try:
            return checksums.read_listing(self.path, checksums.listing_of(start), self.attributes["run"])
        except (checksums.DamageError, OSError):
            return None

    def _is_listed(self, start: int) -> bool:
        return self._listing(start) is not None

    def _is_whole(self, start: int) -> bool:
        listing = self._listing(start)
        try:
            checksums.verify_files(self.path, listing.files if listing else {})
        except (checksums.DamageError, OSError):
            return False
        return listing is not None


def _with(before: Mapping[str, Any], how: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a result with a block more, measured so."""
    after = {**before, **how, "worst_imbalance": max(before.get("worst_imbalance", 0.0), how["worst_imbalance"])}
    if "machines" in how:
        after["machines"] = [*(each for each in before["machines"] if each not in how["machines"]), *how["machines"]]
    return after


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
    workers: Workers | None = None,
) -> Writer:
    """Make an empty result at `path`, with what is `known` before anything is measured.

    Args:
        known: coordinates, attributes, and the variables that are known.
        empty: the dimensions and dtype of the variables that will be measured.
        sizes: the lengths of the dimensions.
        block: how many prompts are written at a time; the length of a chunk.
        overwrite: delete the result that is there, once its successor has been made.
        workers: those that will write to it, where there are several.

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
    attributes = {**known.attrs, "format": FORMAT, "run": run, "chunk_size": block, "measured": 0}
    # Nobody writes to what is overwritten, until its successor stands.
    replaced = lock(path, checksums.KNOWN_FILES) or nullcontext()
    with (
        replaced,
        disk(f"cannot create {path}"),
        replace_atomically(path, overwrite=overwrite) as folder,
        warnings.catch_warnings(),
    ):
        # Consolidated metadata is what xarray.open_zarr looks for first; zarr notes that it is an extension.
        warnings.filterwarnings("ignore", "Consolidated metadata")
        add_units(xr.Dataset(variables), known.attrs["units"]).to_zarr(
            folder,
            mode="w-",
            encoding={name: {"compressors": checked, "chunks": chunks[name]} for name in empty},
            zarr_format=3,
            write_empty_chunks=False,
        )
        texts_to_disk(add_units(known, known.attrs["units"])).assign_attrs(attributes).to_zarr(
            folder,
            mode="a",
            encoding={name: {"compressors": checked} for name in known.variables},
            write_empty_chunks=True,
        )
        root = checksums.parse_root(checksums.read(folder, checksums.ROOT))
        files = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
        checksums.write_listing(folder, checksums.KNOWN_FILES, run, set(files) - {checksums.ROOT}, {})
        checksums.replace(folder, checksums.ROOT, checksums.add_checksum(root))
    return Writer(path, root["attributes"], lock(path, checksums.KNOWN_FILES, shared=workers is not None), workers)


def _unmeasured(dtype: str) -> np.generic:
    kind = np.dtype(dtype)
    return kind.type(0 if kind.kind == "i" else np.nan)


def resume(path: Path, workers: Workers | None = None) -> Writer:
    """Go on with the result at `path`.

    Args:
        workers: those that write to it, where there are several.

    Raises:
        HydrascopeError: another run writes to it, or what was known before anything was measured is damaged.
    """
    held = lock(path, checksums.KNOWN_FILES, shared=workers is not None)
    try:
        attributes = read_attributes(path)
        _require_known(path, known_files(path, attributes))
        return Writer(path, attributes, held, workers)
    except BaseException:
        if held:
            held.close()
        raise


def _require_known(path: Path, known: Mapping[str, str]) -> None:
    try:
        checksums.verify_files(path, known)
    except (checksums.DamageError, OSError) as error:
        why = reason(error)
        raise UnreadableError(f"cannot resume {path}, it is damaged ({why}): measure again with overwrite") from error
