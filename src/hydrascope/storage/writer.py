"""Write results to disk, one chunk of prompts at a time, so that they are always intact.

The attribute `measured` is the number of first prompts with complete chunks. It is raised, by replacing one file, only
after a chunk and its checksums have been written. So the measured prompts are intact, however a run ends.

A result stores the id of its run. Each write checks that the result still belongs to the run. A live run holds a lock,
so that a second run is refused at once. Several processes may write to one result if all of them ask for it
(`coordination.py`); they measure its chunks in any order.
"""

import uuid
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
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
from hydrascope.storage.schema import FORMAT, add_units, attribute, texts_to_disk
from hydrascope.storage.staging import lock, replace_atomically
from hydrascope.utils.disk_errors import disk, reason
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.progress import Advance


@dataclass
class Writer:
    """Write one result, alone or with other workers; leaving the context releases the lock.

    Attributes:
        path: the path of the result.
        attributes: the attributes of the result; `run` is the id of its run.
        lock: the lock on the result; None if the system has no locks.
        workers: the workers on the result; None for a single process.
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
        """Release the lock, so that other runs can write."""
        if self.lock:
            self.lock.close()

    @cached_property
    def unmeasured(self) -> list[range]:
        """The chunks that aren't measured or are damaged, as of the first access.

        All written files are read and compared with their checksums.
        """
        return [chunk for chunk in chunks(self.attributes) if not self._is_whole(chunk.start)]

    def chunks(self, advance: Advance = lambda count: None, first: Collection[int] = ()) -> Iterator[range]:
        """Yield the chunks to measure; each is claimed until the next one is asked for.

        Chunks of other workers are waited for, and taken over if their worker dies.

        Args:
            advance: a function to call with the number of prompts that others have measured.
            first: prompts that should be measured first; chunks with these prompts come before others.
        """
        if self.workers is None:
            yield from self.unmeasured
        else:
            damaged = [chunk for chunk in self.unmeasured if self._is_listed(chunk.start)]

            def is_measured(chunk: range) -> bool:
                # Reading all files of all other workers would take too long.
                done = self._is_whole(chunk.start) if chunk in damaged else self._is_listed(chunk.start)
                advance(len(chunk) if done else 0)
                return done

            ordered = sorted(self.unmeasured, key=lambda chunk: not any(prompt in chunk for prompt in first))
            yield from self.workers.share(ordered, is_measured)
        self.update_measured()

    def write(self, start: int, block: xr.Dataset, how: Mapping[str, Any]) -> None:
        """Write the measured variables of a chunk, then count its prompts as measured.

        Args:
            start: the first prompt of the chunk.
            block: the measured variables of the chunk.
            how: attributes that describe the measurement. The result gets those of the last chunk, the largest
                `worst_imbalance`, and all `machines`.

        Raises:
            HydrascopeError: the disk refuses, or another run writes here. Earlier chunks stay.
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
        """Update `measured` and the attributes of the measurement for all written chunks.

        Args:
            again: the first prompts of chunks that may have been counted before and are now measured again.

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
        """Replace the attributes of `root` by `after` on the disk, if they differ."""
        if after != root["attributes"]:
            checksums.replace(self.path, checksums.ROOT, checksums.add_checksum({**root, "attributes": after}))
        self.attributes = after

    def _disk(self) -> AbstractContextManager[None]:
        advice = f"{self.attributes['measured']:,} prompts are kept: make room and resume"
        return disk(f"cannot write to {self.path}", advice)

    def _root(self) -> dict[str, Any]:
        """Return the result's zarr.json; refuse it if another run has changed it."""
        try:
            root = read_root(self.path)
        except HydrascopeError as error:
            raise HydrascopeError(f"this run ends, since its result was changed: {error}") from error
        same = ("run",) if self.workers else ("run", "measured")
        if any(root["attributes"][name] != self.attributes[name] for name in same):
            raise HydrascopeError(f"another run writes to {self.path}: this one ends and leaves the result to it")
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
    """Return the attributes of a result after one more chunk."""
    after = {**before, **how, "worst_imbalance": max(before.get("worst_imbalance", 0.0), how["worst_imbalance"])}
    if "machines" in how:
        others = [machine for machine in attribute(before, "machines", []) if machine not in how["machines"]]
        after["machines"] = [*others, *how["machines"]]
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
    """Make a result at `path` in which nothing is measured yet.

    Args:
        path: the path of the result.
        known: coordinates, attributes and static variables.
        empty: the dimensions and dtype of each variable to be measured.
        sizes: the lengths of the dimensions.
        block: the number of prompts in a chunk.
        overwrite: delete the result at `path` once the new one has been made.
        workers: the workers on the result; None for a single process.

    Raises:
        HydrascopeError: something is at `path` that is not to be overwritten, another run writes to it, or the disk
            refuses.
    """
    # Views of one number, so that the shapes take no memory.
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
    with (
        ExitStack() as on_failure,
        disk(f"cannot create {path}"),
        replace_atomically(path, checksums.KNOWN_FILES, overwrite=overwrite) as folder,
        warnings.catch_warnings(),
    ):
        # xarray.open_zarr looks for consolidated metadata first; zarr warns that it is an extension.
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
        # Locked before it is at `path`, so that no other run replaces it there.
        writer_lock = lock(folder, checksums.KNOWN_FILES, shared=workers is not None)
        if writer_lock:
            on_failure.push(lambda kind, *_: writer_lock.close() if kind else None)
    return Writer(path, root["attributes"], writer_lock, workers)


def _unmeasured(dtype: str) -> Any:
    """Return the fill value of unmeasured numbers: 0 for integers, else NaN."""
    kind = np.dtype(dtype)
    return kind.type(0 if kind.kind == "i" else np.nan)


def resume(path: Path, workers: Workers | None = None) -> Writer:
    """Resume writing to the result at `path`.

    Args:
        path: the path of the result.
        workers: the workers on the result; None for a single process.

    Raises:
        HydrascopeError: another run writes to it, or its static variables are damaged.
    """
    writer_lock = lock(path, checksums.KNOWN_FILES, shared=workers is not None)
    try:
        attributes = read_attributes(path)
        _require_known(path, known_files(path, attributes))
        return Writer(path, attributes, writer_lock, workers)
    except BaseException:
        if writer_lock:
            writer_lock.close()
        raise


def _require_known(path: Path, known: Mapping[str, str]) -> None:
    try:
        checksums.verify_files(path, known)
    except (checksums.DamageError, OSError) as error:
        why = reason(error)
        raise UnreadableError(f"cannot resume {path}, it is damaged ({why}): measure again with overwrite") from error
