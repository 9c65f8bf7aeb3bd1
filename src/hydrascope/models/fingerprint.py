"""What decides the numbers of a run, as hashes: two runs with the same ones measure the same.

A result keeps them, and is gone on with only where they are still the same.
"""

import functools
import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from hydrascope.models.offload import named_tensors

#: What of a configuration decides nothing: where it is from, and what labels are called. Its dtype may be the file's;
#: that of the model is an attribute of its own.
_NAMES = {
    *("_name_or_path", "_commit_hash", "transformers_version", "architectures", "dtype", "torch_dtype"),
    *("id2label", "label2id"),
}


def hash_json(value: Any) -> str:
    """`sha256:` over anything that JSON can hold."""
    return f"sha256:{hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()}"


def hash_config(config: PretrainedConfig) -> str:
    """Of every value of a configuration that may decide a number, and of how attention is computed."""
    values = json.loads(config.to_json_string(use_diff=False))
    kept = {key: value for key, value in values.items() if key not in _NAMES}
    return hash_json({**kept, "attention": getattr(config, "_attn_implementation", None)})


def hash_parameters(hf: PreTrainedModel) -> str:
    """Of the configuration and all parameters and buffers of a model, names included: about 1 GB a second.

    Not of where it was read from: the same model has the same hash.
    """
    total = hashlib.sha256(hash_config(hf.config).encode())
    for name, value in named_tensors(hf):
        total.update(json.dumps([name, *_described(value)]).encode())
        total.update(_bytes(value))
    return f"sha256:{total.hexdigest()}"


def weight_sums(weight: Tensor) -> str:
    """Of what the bits of a weight add up to, as whole numbers, in stretches of 256 bytes: a tenth of a hash's time.

    Any change shows but one that leaves the sum of each stretch as it was.
    """
    flat = weight.detach().contiguous().flatten().view(torch.uint8)
    whole = len(flat) // 256 * 256
    words = flat[:whole] if flat.storage_offset() % 8 == 0 else flat[:whole].clone()
    total = hashlib.sha256()
    for each in (words.view(torch.int64).unflatten(0, (-1, 32)).sum(1), flat[whole:]):
        total.update(each.cpu().numpy().data)
    return total.hexdigest()


def hash_folder(folder: Path, weights: Iterable[Path]) -> str:
    """Of the configuration and the weight files of a local folder, names included."""
    total = hashlib.sha256()
    for path in (folder / "config.json", *weights):
        total.update(json.dumps(path.name).encode())
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{total.hexdigest()}"


def hash_declared(values: Mapping[str, Any]) -> str:
    """Of what an ablation or a metric is declared with: numbers, texts, tensors, arrays, functions, and collections."""
    return hash_json(_to_json(values))


def _to_json(value: Any) -> Any:
    """`value` as JSON can hold it, tensors and arrays as the hash of their numbers."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | np.generic):
        # Of objects there is nothing but what they say of themselves.
        return (
            repr(value) if value.dtype.hasobject else [*_described(value), hashlib.sha256(value.tobytes()).hexdigest()]
        )
    if isinstance(value, Tensor):
        return [*_described(value), hashlib.sha256(_bytes(value)).hexdigest()]
    if isinstance(value, Mapping):
        return [[_to_json(key), _to_json(each)] for key, each in value.items()]
    if isinstance(value, list | tuple):
        return list(map(_to_json, value))
    if is_dataclass(value) and not isinstance(value, type):
        return [type(value).__name__, *(_to_json(getattr(value, field.name)) for field in fields(value))]
    if isinstance(value, FunctionType):
        return _function(value)
    if isinstance(value, functools.partial):
        return [_to_json(value.func), _to_json(value.args), _to_json(value.keywords)]
    return getattr(value, "__qualname__", type(value).__qualname__)


def _function(function: FunctionType) -> list[Any]:
    """What a function says of what it computes: its source, or its code where that isn't kept, and what it holds."""
    code = function.__code__
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        text = f"{code.co_code.hex()} {code.co_names} {[each for each in code.co_consts if not inspect.iscode(each)]}"
    held = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # an empty one
            held.append(cell.cell_contents)
    # Of functions that it calls the names: they may call it.
    return [
        function.__qualname__,
        text,
        [each.__qualname__ if isinstance(each, FunctionType) else _to_json(each) for each in held],
    ]


def _described(value: Tensor | np.ndarray | np.generic) -> list[Any]:
    return [list(value.shape), str(value.dtype)]


def _bytes(value: Tensor) -> memoryview:
    flat = value.detach().cpu().contiguous()
    # Whatever its strides say of dimensions that have one place or none.
    return flat.as_strided((flat.numel(),), (1,)).view(torch.uint8).numpy().data
