"""Read the header of a GGUF file: settings and tensors, without weights.

The header is checked before transformers reads the file, since a damaged count would keep its reader busy for ever.
"""

import math
import mmap
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from hydrascope.utils import input_files
from hydrascope.utils.errors import HydrascopeError

_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
#: The struct formats of numbers, by GGUF's type ids.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
#: Types that hold plain numbers, and norms in nearly every file.
_PLAIN = ("F32", "F16", "BF16", "F64")
_ALIGNMENT = 32


@dataclass(frozen=True)
class GgufTensor:
    """A tensor of a GGUF file.

    Attributes:
        shape: its shape in GGUF's order, the fastest dimension first.
        type: the name of its number format, such as `Q4_1`.
    """

    shape: tuple[int, ...]
    type: str

    @property
    def numel(self) -> int:
        """Return the count of numbers."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class GgufHeader:
    """The header of a GGUF file.

    Attributes:
        settings: numbers, texts and lists of numbers by key; a list of texts is given by its length.
        tensors: the tensors by name.
    """

    settings: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]

    @property
    def architecture(self) -> str:
        """Return the architecture's name in GGUF, such as `llama`."""
        return str(self.settings.get("general.architecture", ""))

    @property
    def quantization(self) -> str:
        """Return the quantised formats, the commonest first, or the plain one if there is none."""
        sizes: Counter[str] = Counter()
        for tensor in self.tensors.values():
            sizes[tensor.type] += tensor.numel
        quantized = [name for name, _ in sizes.most_common() if name not in _PLAIN]
        return ", ".join(quantized) if quantized else sizes.most_common(1)[0][0]


class _Damaged(Exception):
    """The file ends early, or holds an impossible number."""


def read_header(path: Path) -> GgufHeader:
    """Return the header of a GGUF file, after checking that the file holds all its tensors.

    Raises:
        HydrascopeError: the file can't be read, is no GGUF file, is damaged or cut short, is one part of a model, or
            holds numbers in an unknown format.
    """
    input_files.require_readable(path, "weights")
    with path.open("rb") as file:
        magic = file.read(4)
        if magic != b"GGUF":
            raise HydrascopeError(f"cannot load {path}: it is no GGUF file, since it does not begin with GGUF")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _parse(data, path)
            except (_Damaged, struct.error, UnicodeDecodeError) as error:
                raise HydrascopeError(
                    f"cannot load {path}: it is damaged or cut short ({error}): download it again"
                ) from None


def _parse(data: mmap.mmap, path: Path) -> GgufHeader:
    version, tensor_count, setting_count = struct.unpack_from("<IQQ", data, 4)
    if version not in _VERSIONS:
        known = " and ".join(map(str, _VERSIONS))
        raise HydrascopeError(f"cannot load {path}: it is in version {version} of GGUF: versions {known} are read")
    position, settings = 24, {}
    for _ in range(_checked(setting_count, 13, position, data)):
        key, position = _text(data, position)
        (kind,) = struct.unpack_from("<I", data, position)
        settings[key], position = _value(data, position + 4, kind)
    parts = settings.get("split.count")
    if isinstance(parts, int) and parts > 1:
        raise HydrascopeError(
            f"cannot load {path}: it is one of {parts} parts: merge them with `llama-gguf-split "
            "--merge`, and give the merged file"
        )
    tensors, ends = {}, [0]
    for _ in range(_checked(tensor_count, 24, position, data)):
        name, position = _text(data, position)
        (dimensions,) = struct.unpack_from("<I", data, position)
        if dimensions > 8:
            raise _Damaged(f"{name} has {dimensions} dimensions")
        *shape, kind, offset = struct.unpack_from(f"<{dimensions}QIQ", data, position + 4)
        position += 4 + 8 * dimensions + 12
        tensors[name] = tensor = GgufTensor(tuple(shape), _type_name(kind, name, path))
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType[tensor.type]]
        ends.append(offset + tensor.numel // block * size)
    if not tensors:
        raise HydrascopeError(f"cannot load {path}: it holds no weights")
    alignment = settings.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise _Damaged(f"general.alignment is {alignment}")
    needed = -(-position // alignment) * alignment + max(ends)
    if needed > len(data):
        raise _Damaged(f"{len(data):,} of {needed:,} bytes are there")
    return GgufHeader(settings, tensors)


def _type_name(kind: int, name: str, path: Path) -> str:
    try:
        return GGMLQuantizationType(kind).name
    except ValueError:
        raise HydrascopeError(
            f"cannot load {path}: the numbers of {name} are in format {kind}, which the package gguf doesn't know: "
            "update gguf, or give the model in another quantisation"
        ) from None


def _value(data: mmap.mmap, position: int, kind: int) -> tuple[Any, int]:
    """Return a setting's value and the position after it."""
    if kind in _NUMBERS:
        (value,) = struct.unpack_from(f"<{_NUMBERS[kind]}", data, position)
        return value, position + struct.calcsize(f"<{_NUMBERS[kind]}")
    if kind == _STRING:
        return _text(data, position)
    if kind != _ARRAY:
        raise _Damaged(f"a setting is of type {kind}")
    kind, count = struct.unpack_from("<IQ", data, position)
    position += 12
    if kind in _NUMBERS:
        size = struct.calcsize(f"<{_NUMBERS[kind]}")
        values = struct.unpack_from(f"<{_checked(count, size, position, data)}{_NUMBERS[kind]}", data, position)
        return list(values), position + size * count
    if kind != _STRING:
        raise _Damaged(f"a setting is a list of type {kind}")
    for _ in range(_checked(count, 8, position, data)):
        (length,) = struct.unpack_from("<Q", data, position)
        position += 8 + length
        if position > len(data):
            raise _Damaged("a list of texts ends after the file")
    return count, position


def _text(data: mmap.mmap, position: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", data, position)
    end = position + 8 + length
    if end > len(data):
        raise _Damaged("a text ends after the file")
    return data[position + 8 : end].decode(), end


def _checked(count: int, size: int, position: int, data: mmap.mmap) -> int:
    """Return `count`, after checking that as many items of at least `size` bytes can follow."""
    if count * size > len(data) - position:
        raise _Damaged(f"it announces {count:,} items")
    return count
