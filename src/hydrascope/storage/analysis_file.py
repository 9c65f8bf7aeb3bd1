"""Datasets of analyses on disk, as plain Zarr that xarray reads."""

from pathlib import Path

import xarray as xr

from hydrascope.storage.schema import flat_attributes, texts_from_disk, texts_to_disk
from hydrascope.utils.disk_errors import disk
from hydrascope.utils.errors import HydrascopeError


def write_analysis(found: xr.Dataset, path: Path) -> None:
    """Write the dataset of an analysis; an older one at the same path is replaced.

    >>> write_analysis(found, Path("distance.zarr"))                                       # doctest: +SKIP

    Raises:
        HydrascopeError: the disk refuses.
    """
    stored = texts_to_disk(found)
    stored.attrs = flat_attributes(found.attrs)
    with disk(f"cannot write to {path}"):
        stored.to_zarr(path, mode="w", zarr_format=3, consolidated=False)


def read_analysis(path: Path, variable: str, command: str) -> xr.Dataset:
    """Read the dataset of an analysis into memory.

    Args:
        path: the folder that `write_analysis` wrote.
        variable: a variable that it must have.
        command: the command that makes it, for the message.

    Raises:
        HydrascopeError: there is none, or it can't be read, or is of another analysis.
    """
    try:
        found: xr.Dataset = xr.open_zarr(path, consolidated=False).load()
    except Exception as error:
        raise HydrascopeError(f"cannot read {path}: give the folder that `{command}` wrote") from error
    if variable not in found:
        raise HydrascopeError(f"{path} is of another analysis: give the folder that `{command}` wrote")
    return found.assign({name: texts_from_disk(variable) for name, variable in found.variables.items()})
