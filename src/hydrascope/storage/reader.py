"""Results on disk, as they are read: one Zarr group a run, each variable when it is looked at, nothing that is damaged.

The group opens with `xarray.open_zarr`, too, which doesn't compare checksums (`manifest.py`) as `open_results` does.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core.indexing import ExplicitIndexer, IndexingSupport, LazilyIndexedArray, explicit_indexing_adapter
from zarr.storage import LocalStore, StorePath

from hydrascope.storage import checksums
from hydrascope.storage.paths import resolve_path
from hydrascope.storage.schema import FORMAT, MEASURED_VARIABLES, OLD_FORMATS, texts_from_disk
from hydrascope.utils.disk_errors import disk, reason
from hydrascope.utils.errors import HydrascopeError


class NoResultError(HydrascopeError):
    """What is there is something else than a result."""


class UnreadableError(HydrascopeError):
    """A result that is damaged, or of a format that is no longer read: it can only be made again."""


def read_attributes(path: Path) -> dict[str, Any]:
    """The attributes of the result at `path`.

    Raises:
        HydrascopeError: there is none, or it is damaged.
    """
    return checksums.check_attributes(read_root(path))


def read_root(path: Path) -> dict[str, Any]:
    """The zarr.json of the result at `path`, with its attributes.

    Raises:
        HydrascopeError: there is none, or it is damaged.
    """
    with disk(f"cannot read {path}", "give a folder that you may read"):
        if not path.exists():
            raise HydrascopeError(f"there is no {path}: make it with hydrascope run")
        try:
            root = checksums.parse_root(checksums.read(path, checksums.ROOT))
            version = root["attributes"]["format"]
        except (checksums.DamageError, KeyError) as error:
            raise NoResultError(
                f"{path} is no hydrascope result, or its {checksums.ROOT} is damaged: give a folder that hydrascope "
                "run made"
            ) from error
    if version in OLD_FORMATS:
        old = OLD_FORMATS[version]
        raise UnreadableError(f"{path} holds a result of format {old}, which is no longer read: measure again")
    if version != FORMAT:
        raise HydrascopeError(f"{path} holds format {version!r}, and this hydrascope reads {FORMAT}: use a newer one")
    try:
        checksums.check_attributes(root)
    except checksums.DamageError as error:
        raise UnreadableError(
            f"{path} is damaged, its attributes in {checksums.ROOT} are not what was written: measure again"
        ) from error
    return root


def open_results(path: str | Path) -> xr.Dataset:
    """The result at `path`: all prompts that have been measured, each variable read when it is looked at.

    Of a run that was interrupted these are the first `attrs["measured"]` of its prompts. What is damaged is said to be
    so when it is opened or, at the latest, read: every file must be what was written at its place.

        >>> hs.open_results("gpt2.zarr")["total"].mean(["prompt", "patch"])      # doctest: +SKIP

    Raises:
        HydrascopeError: there is no result, nothing of it is measured yet, or it is damaged.
    """
    path = resolve_path(path)
    attributes = read_attributes(path)
    measured = attributes["measured"]
    if measured == 0:
        raise HydrascopeError(f"nothing of {path} is measured yet: resume the run")
    known = known_files(path, attributes)
    files = {**known, **_measured_files(path, attributes)}
    store = checksums.CheckedStore(LocalStore(path, read_only=True), files)
    variables, coordinates = {}, {}
    for name in sorted({file.split("/")[0] for file in known}):
        with _reading(path, name):
            array: Any = zarr.open_array(StorePath(store, name), mode="r", zarr_format=3)
            dims = array.metadata.dimension_names
            data = LazilyIndexedArray(_Array(array, path, name))
            # What xarray writes besides is for its own reading.
            attrs = {key: value for key, value in array.attrs.items() if key in ("long_name", "units")}
            variable = xr.Variable(dims, data, attrs, {"preferred_chunks": dict(zip(dims, array.chunks, strict=True))})
        if name in MEASURED_VARIABLES:
            variables[name] = variable
        elif name in ("target", "downstream"):
            variables[name] = variable.load()
        else:
            coordinates[name] = texts_from_disk(variable.load())
    # Of the folder, not of what was measured.
    for name in ("coordinates", "run"):
        attributes.pop(name, None)
    return xr.Dataset(variables, coordinates, attributes).isel(prompt=slice(measured))


def known_files(path: Path, attributes: dict[str, Any]) -> Mapping[str, str]:
    """The checksums of what was known before anything was measured.

    Raises:
        UnreadableError: they are damaged.
    """
    try:
        return checksums.read_listing(path, checksums.KNOWN_FILES, attributes["run"]).files
    except (checksums.DamageError, OSError) as error:
        raise UnreadableError(f"{path} is damaged ({reason(error)}): measure again") from error


def chunks(attributes: dict[str, Any]) -> list[range]:
    """The blocks of prompts in which a result is measured."""
    return split_range(attributes["prompt_count"], attributes["chunk_size"])


def split_range(prompts: int, size: int) -> list[range]:
    """The blocks of so many prompts, `size` each."""
    return [range(start, min(start + size, prompts)) for start in range(0, prompts, size)]


def _measured_files(path: Path, attributes: dict[str, Any]) -> dict[str, str]:
    """The checksums of all measured blocks, whose files are there: zarr reads a missing one as if never written."""
    files: dict[str, str] = {}
    try:
        for chunk in split_range(attributes["measured"], attributes["chunk_size"]):
            files |= checksums.read_listing(path, checksums.listing_of(chunk.start), attributes["run"]).files
    except (checksums.DamageError, OSError) as error:
        raise HydrascopeError(f"{path} is damaged ({reason(error)}): {_MEND}") from error
    for file in files:
        if not (path / file).is_file():
            raise _damaged(path, file.split("/")[0], checksums.DamageError(f"{file} is missing"))
    return files


_MEND = "resume its run, which measures that again"


def _damaged(path: Path, name: str, error: Exception) -> HydrascopeError:
    mend = _MEND if name in MEASURED_VARIABLES else "measure again"
    return HydrascopeError(f"{path} is damaged, {name} cannot be read ({reason(error)}): {mend}")


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
    except Exception as error:  # zarr and its codecs raise errors of many kinds
        raise _damaged(path, name, error) from error
