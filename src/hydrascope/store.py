"""Results on disk: one Zarr group a run, written a block of prompts at a time, never believed when damaged.

The group opens with `xarray.open_zarr`. Its attribute `measured` counts the prompts whose block is complete;
it is raised, by replacing one file, only after everything of a block has been written. So whatever ends a
run, what counts as measured is whole. Chunks carry checksums.
"""

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core.indexing import ExplicitIndexer, IndexingSupport, LazilyIndexedArray, explicit_indexing_adapter
from zarr.codecs import ZstdCodec

from hydrascope.errors import HydrascopeError
from hydrascope.variables import FORMAT, MEASURED, described

_ROOT = "zarr.json"


def create(
    path: Path,
    known: xr.Dataset,
    empty: Mapping[str, tuple[tuple[str, ...], str]],
    sizes: Mapping[str, int],
    block: int,
    *,
    overwrite: bool = False,
) -> None:
    """Make an empty result at `path`, with what is `known` before anything is measured.

    Args:
        known: coordinates, attributes, and the variables that are known.
        empty: the dimensions and dtype of the variables that will be measured.
        sizes: the lengths of the dimensions.
        block: how many prompts are written at a time; the length of a chunk.
        overwrite: delete the result that is there, once its successor has been made.

    Raises:
        HydrascopeError: something is there already, or the disk refuses.
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
    # Made beside its place and moved there whole, so that a run killed meanwhile leaves no half of a result.
    partial = path.with_name(f".{path.name}.partial")
    with _disk(f"cannot create {path}"), _removed_on_failure(partial), warnings.catch_warnings():
        # Consolidated metadata is what xarray.open_zarr looks for first; zarr notes that it is an extension.
        warnings.filterwarnings("ignore", "Consolidated metadata")
        described(xr.Dataset(variables), known.attrs["units"]).to_zarr(
            partial,
            mode="w-",
            encoding={name: {"compressors": checked, "chunks": chunks[name]} for name in empty},
            zarr_format=3,
            write_empty_chunks=False,
        )
        described(known, known.attrs["units"]).assign_attrs(format=FORMAT, measured=0).to_zarr(
            partial,
            mode="a",
            encoding={name: {"compressors": checked} for name in known.variables},
            write_empty_chunks=True,
        )
        if path.exists():
            if not overwrite:
                raise HydrascopeError(f"{path} exists: choose another place")
            remove(path)
        partial.rename(path)


@contextmanager
def _removed_on_failure(folder: Path) -> Iterator[None]:
    """Make room for `folder`, and leave nothing of it where it couldn't be finished."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _unmeasured(dtype: str) -> np.generic:
    kind = np.dtype(dtype)
    return kind.type(0 if kind.kind == "i" else np.nan)


def write(path: Path, start: int, block: xr.Dataset, attributes: Mapping[str, Any]) -> None:
    """Write the measured variables of the prompts from `start` on, then count them as measured.

    Args:
        attributes: of the result, changed in the same instant.

    Raises:
        HydrascopeError: the disk refuses; what was measured before stays.
    """
    stop = start + block.sizes["prompt"]
    kept = f"{start:,} prompts are kept: make room and resume"
    with _disk(f"cannot write to {path}", kept):
        block.to_zarr(path, region={"prompt": slice(start, stop)}, write_empty_chunks=True, consolidated=False)
        _update_attributes(path, {**attributes, "measured": stop})


def _update_attributes(path: Path, attributes: Mapping[str, Any]) -> None:
    root = json.loads((path / _ROOT).read_bytes())
    root["attributes"].update(attributes)
    # Beside the result: zarr wonders at files that it doesn't know.
    place = path.resolve()
    partial = place.with_name(f".{place.name}.attributes")
    try:
        with partial.open("w") as file:
            json.dump(root, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(place / _ROOT)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def read_attributes(path: Path) -> dict[str, Any]:
    """The attributes of the result at `path`.

    Raises:
        HydrascopeError: there is none.
    """
    if not path.exists():
        raise HydrascopeError(f"there is no {path}: make it with hydrascope run")
    try:
        attributes = dict(json.loads((path / _ROOT).read_bytes())["attributes"])
        version = attributes["format"]
        int(attributes["measured"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HydrascopeError(f"{path} is no hydrascope result: give a folder that hydrascope run made") from error
    if version == "hydrascope results 1":
        raise OlderFormatError(f"{path} holds a result of format 1, which is no longer read: measure again")
    if version != FORMAT:
        raise HydrascopeError(f"{path} holds format {version!r}, and this hydrascope reads {FORMAT}: use a newer one")
    return attributes


class OlderFormatError(HydrascopeError):
    """A result of a format that is no longer read."""


def open_results(path: str | Path) -> xr.Dataset:
    """The result at `path`: all prompts that have been measured, each variable read when it is looked at.

    Of a run that was interrupted these are the first `attrs["measured"]` of its prompts. What is damaged is said to be
    so when it is opened or, at the latest, read.

        >>> hs.open_results("gpt2.zarr")["total"].mean(["prompt", "patch"])      # doctest: +SKIP

    Raises:
        HydrascopeError: there is no result, nothing of it is measured yet, or it is damaged.
    """
    path = Path(path)
    attributes = read_attributes(path)
    measured = attributes["measured"]
    if measured == 0:
        raise HydrascopeError(f"nothing of {path} is measured yet: resume the run")
    with _reading(path, "its list of variables"):
        group = zarr.open_group(path, mode="r", use_consolidated=False)
        names = sorted(group.array_keys())
    variables, coordinates = {}, {}
    for name in names:
        with _reading(path, name):
            array: Any = group[name]
            dims = array.metadata.dimension_names
            _refuse_missing_chunks(path / name, array, measured if name in MEASURED else None)
            data = LazilyIndexedArray(_Array(array, path, name))
            # What xarray writes besides is for its own reading.
            attrs = {key: value for key, value in array.attrs.items() if key in ("long_name", "units")}
            variable = xr.Variable(dims, data, attrs, {"preferred_chunks": dict(zip(dims, array.chunks, strict=True))})
        if name in MEASURED:
            variables[name] = variable
        elif name in ("target", "downstream"):
            variables[name] = variable.load()
        else:
            coordinates[name] = variable.load()
    attributes.pop("coordinates", None)
    return xr.Dataset(variables, coordinates, attributes).isel(prompt=slice(measured))


class _Array(BackendArray):
    """An array on disk that says what is damaged when it is read."""

    def __init__(self, array: Any, path: Path, name: str) -> None:
        self.array, self.path, self.name = array, path, name
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, key: ExplicitIndexer) -> Any:
        return explicit_indexing_adapter(key, self.shape, IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple) -> Any:
        with _reading(self.path, self.name):
            return self.array.oindex[key]


@contextmanager
def _reading(path: Path, name: str) -> Iterator[None]:
    try:
        yield
    except (MemoryError, HydrascopeError):
        raise
    except Exception as error:  # zarr and its codecs raise errors of many kinds for a damaged file
        reason = " ".join(str(error).split())
        raise HydrascopeError(f"{path} is damaged, {name} cannot be read ({reason}): measure again") from error


def _refuse_missing_chunks(folder: Path, array: Any, extent: int | None) -> None:
    """zarr reads a chunk that is gone as if it had never been written; those of the first `extent` prompts must be."""
    dims = array.metadata.dimension_names
    counts = [
        -(-(extent if dim == "prompt" and extent is not None else length) // chunk)
        for dim, length, chunk in zip(dims, array.shape, array.chunks, strict=True)
    ]
    # One by one: a run that was killed may have left chunks of a block that doesn't count.
    if not all((folder / array.metadata.encode_chunk_key(chunk)).exists() for chunk in np.ndindex(*counts)):
        raise FileNotFoundError("a chunk is missing")


def remove(path: Path) -> None:
    """Delete the result at `path`.

    Raises:
        HydrascopeError: what is there is no result of hydrascope, and stays.
    """
    with suppress(OlderFormatError):
        read_attributes(path)
    path = path.resolve()
    # Moved aside first: nobody meets half of a result under its name.
    aside = path.with_name(f".{path.name}.removed")
    with _disk(f"cannot delete {path}"):
        if aside.exists():
            shutil.rmtree(aside)
        path.rename(aside)
        shutil.rmtree(aside)


@contextmanager
def _disk(failure: str, kept: str = "choose another place or make room") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HydrascopeError(f"{failure} ({error.strerror or error}); {kept}") from error
