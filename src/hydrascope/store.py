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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import ZstdCodec

from hydrascope.errors import HydrascopeError

FORMAT = "hydrascope results 1"

#: The variables that are measured, by the names of the specification, and their dimensions.
MEASURED: dict[str, tuple[str, ...]] = {
    "unembed": ("prompt", "component"),
    "unembed_ablated": ("prompt", "ablated", "patch", "component"),
    "total": ("prompt", "ablated", "patch"),
    "direct": ("prompt", "ablated", "patch"),
    "indirect": ("prompt", "ablated", "patch"),
    "norm": ("prompt", "ablated", "patch"),
    "patch_prompt": ("prompt", "patch"),
    "logit": ("prompt",),
    "imbalance": ("prompt",),
}

_ROOT = "zarr.json"


def create(path: Path, known: xr.Dataset, patches: int, dtype: str, block: int, *, overwrite: bool = False) -> None:
    """Make an empty result at `path`, with what is `known` before anything is measured.

    Args:
        known: coordinates, attributes, and the variables that are not `MEASURED`.
        patches: the length of dimension `patch`.
        dtype: of the measured numbers, `float32` or `float64`.
        block: how many prompts are written at a time; the length of a chunk.
        overwrite: delete the result that is there, once its successor has been made.

    Raises:
        HydrascopeError: something is there already, or the disk refuses.
    """
    sizes = {**known.sizes, "patch": patches}
    # Views of one number: the shapes without the memory.
    empty = {
        name: (dims, np.broadcast_to(_unmeasured(name, dtype), [sizes[dim] for dim in dims]))
        for name, dims in MEASURED.items()
    }
    chunks = {name: (block, *(sizes[dim] for dim in dims[1:])) for name, dims in MEASURED.items()}
    checked = (ZstdCodec(level=1, checksum=True),)
    # Made beside its place and moved there whole, so that a run killed meanwhile leaves no half of a result.
    partial = path.with_name(f".{path.name}.partial")
    with _disk(f"cannot create {path}"), _removed_on_failure(partial), warnings.catch_warnings():
        # Consolidated metadata is what xarray.open_zarr looks for first; zarr notes that it is an extension.
        warnings.filterwarnings("ignore", "Consolidated metadata")
        xr.Dataset(empty).to_zarr(
            partial,
            mode="w-",
            encoding={name: {"compressors": checked, "chunks": chunks[name]} for name in empty},
            zarr_format=3,
            write_empty_chunks=False,
        )
        known.assign_attrs(format=FORMAT, measured=0).to_zarr(
            partial,
            mode="a",
            encoding={name: {"compressors": checked} for name in known.variables},
            write_empty_chunks=True,
        )
        if path.exists():
            if not overwrite:
                raise HydrascopeError(f"{path} exists: choose another --out")
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


def _unmeasured(name: str, dtype: str) -> np.generic:
    return np.int64(0) if name == "patch_prompt" else np.dtype(dtype).type(np.nan)


def write(path: Path, start: int, block: xr.Dataset, attributes: Mapping[str, Any]) -> None:
    """Write the `MEASURED` variables of the prompts from `start` on, then count them as measured.

    Args:
        attributes: of the result, changed in the same instant.

    Raises:
        HydrascopeError: the disk refuses; what was measured before stays.
    """
    stop = start + block.sizes["prompt"]
    kept = f"{start:,} prompts are kept: make room and go on with --resume"
    with _disk(f"cannot write to {path}", kept):
        block[list(MEASURED)].drop_vars(block.coords).to_zarr(
            path, region={"prompt": slice(start, stop)}, write_empty_chunks=True, consolidated=False
        )
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
        attributes = json.loads((path / _ROOT).read_bytes())["attributes"]
        version = attributes["format"]
        int(attributes["measured"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HydrascopeError(f"{path} is no hydrascope result: give a folder that hydrascope run made") from error
    if version != FORMAT:
        raise HydrascopeError(f"{path} holds {version!r}, not {FORMAT!r}: use the hydrascope that wrote it")
    return dict(attributes)


def open_results(path: str | Path) -> xr.Dataset:
    """The result at `path`, in memory: all prompts that have been measured.

    Of a run that was interrupted these are the first `attrs["measured"]` of its prompts.

    Raises:
        HydrascopeError: there is no result, nothing of it is measured yet, or it is damaged.
    """
    path = Path(path)
    measured = read_attributes(path)["measured"]
    if measured == 0:
        raise HydrascopeError(f"nothing of {path} is measured yet: go on with hydrascope run --resume")
    name = _ROOT
    try:
        results = xr.open_dataset(path, engine="zarr", chunks=None).isel(prompt=slice(measured))
        for name in sorted({*MEASURED, *map(str, results.variables)}):
            _refuse_missing_chunks(path / name, measured if name in MEASURED else None)
            results.variables[name].load()
    except MemoryError:
        raise
    except Exception as error:  # zarr and its codecs raise errors of many kinds for a damaged file
        reason = " ".join(str(error).split())
        raise HydrascopeError(
            f"{path} is damaged, {name} cannot be read ({reason}): measure again with --overwrite"
        ) from error
    return results


def _refuse_missing_chunks(array_path: Path, extent: int | None) -> None:
    """zarr reads a chunk that is gone as if it had never been written; `extent` rows must have been."""
    array = zarr.open_array(array_path, mode="r")
    block, rows = array.chunks[0], array.shape[0]
    if array.nchunks_initialized < -(-(rows if extent is None else extent) // block):
        raise FileNotFoundError("a chunk is missing")


def remove(path: Path) -> None:
    """Delete the result at `path`.

    Raises:
        HydrascopeError: what is there is no result of hydrascope, and stays.
    """
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
def _disk(failure: str, kept: str = "choose another --out or make room") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HydrascopeError(f"{failure} ({error.strerror or error}); {kept}") from error
