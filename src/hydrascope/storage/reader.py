"""Read results from disk: one Zarr group per run, variables read lazily, damage refused.

`xarray.open_zarr` opens the group, too, but doesn't compare checksums (`checksums.py`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import xarray as xr
import zarr
from xarray.backends import BackendArray
from xarray.core.indexing import ExplicitIndexer, IndexingSupport, LazilyIndexedArray, explicit_indexing_adapter
from zarr.storage import LocalStore, StorePath

from hydrascope.storage import checksums
from hydrascope.storage.paths import resolve_path
from hydrascope.storage.schema import FORMAT, MEASURED_VARIABLES, OLD_FORMATS, flat_attributes, texts_from_disk
from hydrascope.utils.disk_errors import disk, reason
from hydrascope.utils.errors import HydrascopeError


class NoResultError(HydrascopeError):
    """An error for a path that holds something other than a result."""


class UnreadableError(HydrascopeError):
    """An error for a damaged result, or one of an old format, which must be measured again."""


def read_attributes(path: Path) -> dict[str, Any]:
    """Return the attributes of the result at `path`.

    Raises:
        HydrascopeError: there is no result, or it is damaged.
    """
    return checksums.check_attributes(read_root(path))


def read_root(path: Path) -> dict[str, Any]:
    """Return the zarr.json of the result at `path`, with its attributes.

    Raises:
        HydrascopeError: there is no result, or it is damaged.
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
        if not {"checksum", "run"} & root["attributes"].keys():
            raise HydrascopeError(
                f"{path} was saved from an opened result, by xarray's to_zarr or another program: open it with "
                "xarray.open_zarr"
            ) from error
        raise UnreadableError(
            f"{path} is damaged, its attributes in {checksums.ROOT} are not what was written: measure it again"
        ) from error
    return root


def open_results(path: str | Path) -> xr.Dataset:
    """Open the result at `path`; each variable is read when it is first used.

    The result of an interrupted run has the first `attrs["measured"]` of its prompts. Each file is compared with its
    checksum when it is read; damage is an error, at the latest then.

        >>> results = hs.sweep(model, prompts, hs.Zero(), out="results.zarr")
        >>> total = hs.open_results("results.zarr")["total"]  # [readout, prompt, ablated, patch]

    Args:
        path: the folder that `sweep(out=)` or `hydrascope run` made.

    Returns:
        All measured prompts; `hydrascope.storage.schema` lists the variables with their dimensions and units.

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
        with _reading(path, name, attributes["run"]):
            array: Any = zarr.open_array(StorePath(store, name), mode="r", zarr_format=3)
            dims = array.metadata.dimension_names
            data = LazilyIndexedArray(_Array(array, path, name, attributes["run"]))
            # The other attributes are xarray's own.
            attrs = {key: value for key, value in array.attrs.items() if key in ("long_name", "units")}
            variable = xr.Variable(dims, data, attrs, {"preferred_chunks": dict(zip(dims, array.chunks, strict=True))})
        if name in MEASURED_VARIABLES:
            variables[name] = variable
        elif name in ("target", "downstream"):
            variables[name] = variable.load()
        else:
            coordinates[name] = texts_from_disk(variable.load())
    # These attributes describe the folder, not the measurement.
    for name in ("coordinates", "run"):
        attributes.pop(name, None)
    return xr.Dataset(variables, coordinates, flat_attributes(attributes)).isel(prompt=slice(measured))


def known_files(path: Path, attributes: dict[str, Any]) -> Mapping[str, str]:
    """Return the checksums of the files that were written before anything was measured.

    Raises:
        UnreadableError: their listing is damaged.
    """
    try:
        return checksums.read_listing(path, checksums.KNOWN_FILES, attributes["run"]).files
    except (checksums.DamageError, OSError) as error:
        _refuse_replaced(path, attributes["run"])
        raise UnreadableError(f"{path} is damaged ({reason(error)}): measure it again") from error


def chunks(attributes: dict[str, Any]) -> list[range]:
    """Return the chunks of prompts of a result."""
    return split_range(attributes["prompt_count"], attributes["chunk_size"])


def split_range(prompts: int, size: int) -> list[range]:
    """Split a number of prompts into chunks of `size`.

    >>> split_range(5, 2)
    [range(0, 2), range(2, 4), range(4, 5)]
    """
    return [range(start, min(start + size, prompts)) for start in range(0, prompts, size)]


def _measured_files(path: Path, attributes: dict[str, Any]) -> dict[str, str]:
    """Return the checksums of all files of measured chunks, and make sure that the files exist.

    Zarr reads a missing file as if it had never been written.
    """
    files: dict[str, str] = {}
    try:
        for chunk in split_range(attributes["measured"], attributes["chunk_size"]):
            files |= checksums.read_listing(path, checksums.listing_of(chunk.start), attributes["run"]).files
    except (checksums.DamageError, OSError) as error:
        _refuse_replaced(path, attributes["run"])
        raise HydrascopeError(f"{path} is damaged ({reason(error)}): {_REMEDY}") from error
    for file in files:
        if not (path / file).is_file():
            missing = checksums.DamageError(f"{file} is missing")
            raise _damaged(path, file.split("/")[0], attributes["run"], missing)
    return files


_REMEDY = "resume its run, which measures that again"


def _refuse_replaced(path: Path, run: str) -> None:
    """Raise if `path` no longer holds the result of `run`, so that it isn't called damaged.

    Raises:
        HydrascopeError: another run replaced it, or it was deleted.
    """
    if not path.exists():
        raise HydrascopeError(f"{path} was deleted while it was read: measure it again")
    with suppress(UnreadableError, NoResultError):
        if read_attributes(path)["run"] != run:
            raise HydrascopeError(f"another run replaced {path} while it was read: open it again")


def _damaged(path: Path, name: str, run: str, error: Exception) -> HydrascopeError:
    _refuse_replaced(path, run)
    remedy = _REMEDY if name in MEASURED_VARIABLES else "measure it again"
    return HydrascopeError(f"{path} is damaged, {name} cannot be read ({reason(error)}): {remedy}")


class _Array(BackendArray):
    """An array on disk that reports damage when it is read."""

    def __init__(self, array: Any, path: Path, name: str, run: str) -> None:
        self.array, self.path, self.name, self.run = array, path, name, run
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, key: ExplicitIndexer) -> Any:
        return explicit_indexing_adapter(key, self.shape, IndexingSupport.OUTER, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        with _reading(self.path, self.name, self.run):
            return self.array.oindex[key]


@contextmanager
def _reading(path: Path, name: str, run: str) -> Iterator[None]:
    try:
        yield
    except (MemoryError, HydrascopeError):
        raise
    except Exception as error:  # zarr and its codecs raise errors of many kinds
        raise _damaged(path, name, run, error) from error
