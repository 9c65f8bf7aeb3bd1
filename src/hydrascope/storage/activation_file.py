"""Write activations to one safetensors file, prompt by prompt, and read what is used of it.

The file is that of https://github.com/huggingface/safetensors: any program that knows the format reads its tensors. Its
metadata say, as JSON, which dimensions these have, the coordinates, and how all was measured.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from hydrascope.storage.paths import require_room, resolve_path
from hydrascope.utils.disk_errors import disk
from hydrascope.utils.errors import HydrascopeError

SUFFIX = ".safetensors"

#: The key of the metadata that describe the dataset.
_KEY = "hydrascope"
#: The names of dtypes in the format.
_DTYPES = {"float32": "F32", "float64": "F64"}


def require_new_file(path: str | Path, *, overwrite: bool) -> Path:
    """Return the path of a file to write, checked before anything is computed.

    Raises:
        HydrascopeError: it has another ending than .safetensors, exists, or can't be made there.
    """
    out = resolve_path(path)
    if out.suffix != SUFFIX:
        raise HydrascopeError(f"cannot write {out}: give a file name that ends in {SUFFIX}")
    if out.exists() and not overwrite:
        raise HydrascopeError(f"{out} exists: choose another path, or give overwrite=True")
    require_room(out)
    if not out.parent.is_dir():
        raise HydrascopeError(f"cannot write {out}: there is no folder {out.parent}; create it, or choose another path")
    return out


@contextmanager
def writing(path: Path, empty: xr.Dataset) -> Iterator[Mapping[str, np.ndarray]]:
    """Create a file; yield its arrays to be filled. It takes its place when all is written.

    Args:
        path: the file.
        empty: the dataset: its variables give names, dimensions, shapes and dtypes, and have no numbers yet.

    Raises:
        HydrascopeError: the disk refuses.
    """
    header, sizes = _header(empty)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with disk(f"cannot write {path}"):
            with open(part, "wb") as file:
                file.write(len(header).to_bytes(8, "little") + header)
                file.truncate(8 + len(header) + sum(sizes.values()))
            arrays, start = {}, 8 + len(header)
            for name, size in sizes.items():
                variable = empty[name]
                arrays[name] = np.memmap(part, variable.dtype, "r+", start, variable.shape)
                start += size
        yield arrays
        with disk(f"cannot write {path}"):
            for array in arrays.values():
                array.flush()
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _header(empty: xr.Dataset) -> tuple[bytes, dict[str, int]]:
    """Return the header of a file, and the bytes of each variable in it."""
    tensors: dict[str, Any] = {}
    sizes: dict[str, int] = {}
    start = 0
    for name, variable in empty.data_vars.items():
        sizes[str(name)] = variable.dtype.itemsize * int(np.prod(variable.shape))
        end = start + sizes[str(name)]
        dtype = _DTYPES[str(variable.dtype)]
        tensors[str(name)] = {"dtype": dtype, "shape": list(variable.shape), "data_offsets": [start, end]}
        start = end
    described = {
        "variables": {name: [list(variable.dims), variable.attrs] for name, variable in empty.data_vars.items()},
        "coords": {name: [list(coord.dims), coord.values.tolist()] for name, coord in empty.coords.items()},
        "attrs": empty.attrs,
    }
    text = json.dumps({"__metadata__": {_KEY: json.dumps(described)}, **tensors}).encode()
    # The data begin at a multiple of 8 bytes, so that numbers are aligned.
    return text + b" " * (-len(text) % 8), sizes


def open_activations(path: str | Path) -> xr.Dataset:
    """Open activations that `hydrascope.activations` wrote; read numbers when they are used.

        >>> made = hs.activations(model, prompts, "mlp", out="mlps.safetensors")
        >>> hs.open_activations("mlps.safetensors")["write"].dims
        ('prompt', 'slot', 'component', 'width')

    Args:
        path: the file.

    Returns:
        The dataset that `hydrascope.activations` returns.

    Raises:
        HydrascopeError: there is no such file, it is damaged, or hydrascope didn't write it.
    """
    file = resolve_path(path)
    try:
        header, described, start = _read_header(file)
        damaged = [
            name
            for name in described["variables"]
            if header[name]["data_offsets"][1] > file.stat().st_size - start
            or _bytes(header[name]) != header[name]["data_offsets"][1] - header[name]["data_offsets"][0]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise HydrascopeError(f"{file} holds no activations: give a file that hs.activations wrote") from error
    if damaged:
        raise HydrascopeError(f"{file} is damaged, {damaged[0]} is not whole: measure again")
    names = {dtype: name for name, dtype in _DTYPES.items()}
    variables = {}
    for name, (dims, attrs) in described["variables"].items():
        tensor = header[name]
        offset = start + tensor["data_offsets"][0]
        data = np.memmap(file, names[tensor["dtype"]], "r", offset, tuple(tensor["shape"]))
        variables[name] = (tuple(dims), data, attrs)
    coords = {name: (tuple(dims), _array(values)) for name, (dims, values) in described["coords"].items()}
    return xr.Dataset(variables, coords, described["attrs"])


def _read_header(file: Path) -> tuple[dict[str, Any], dict[str, Any], int]:
    """Return the tensors of a file, what its metadata say, and the byte at which its data begin.

    Raises:
        HydrascopeError: it can't be read.
        KeyError, TypeError, ValueError: it is another file.
    """
    with disk(f"cannot read {file}", "give a file that hs.activations wrote"), open(file, "rb") as raw:
        length = int.from_bytes(raw.read(8), "little")
        if length > file.stat().st_size:
            raise ValueError("the header is longer than the file")
        header = json.loads(raw.read(length))
    return header, json.loads(header["__metadata__"][_KEY]), 8 + length


def _bytes(tensor: dict[str, Any]) -> int:
    itemsize = {"F32": 4, "F64": 8}[tensor["dtype"]]
    return itemsize * int(np.prod(tensor["shape"]))


def _array(values: list[Any]) -> np.ndarray:
    """Return the values of a coordinate; texts as Python strings."""
    array = np.array(values)
    return array.astype(object) if array.dtype.kind == "U" else array
