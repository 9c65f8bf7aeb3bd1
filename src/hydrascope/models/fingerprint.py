"""Hashes of a run's inputs: runs with the same hashes measure the same numbers.

A result stores them, and is resumed only if they are still the same.
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

#: Entries of a configuration that change no number: its origin and its labels. Its dtype may be the file's; the model's
#: dtype is hashed on its own.
_NAMES = {
    *("_name_or_path", "_commit_hash", "transformers_version", "architectures", "dtype", "torch_dtype"),
    *("id2label", "label2id"),
}


def hash_json(value: Any) -> str:
    """Return `sha256:` and the hash of a value that JSON can represent."""
    return f"sha256:{hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()}"


def hash_config(config: PretrainedConfig) -> str:
    """Hash all entries of a configuration that may change a number, and the attention function."""
    values = json.loads(config.to_json_string(use_diff=False))
    kept = {key: value for key, value in values.items() if key not in _NAMES}
    return hash_json({**kept, "attention": getattr(config, "_attn_implementation", None)})


def hash_parameters(hf: PreTrainedModel) -> str:
    """Hash the configuration, parameters and buffers of a model, names included.

    The same model has the same hash wherever it was read from. It takes about 1 s for 1 GB.
    """
    total = hashlib.sha256(hash_config(hf.config).encode())
    for name, value in named_tensors(hf):
        total.update(json.dumps([name, *_described(value)]).encode())
        total.update(_bytes(value))
    return f"sha256:{total.hexdigest()}"


def weight_sums(weight: Tensor) -> str:
    """Hash the sums of a weight's bits, as integers, over stretches of 256 bytes.

    It takes a tenth of the time of a full hash, and misses only changes that keep all sums.
    """
    flat = weight.detach().contiguous().flatten().view(torch.uint8)
    whole = len(flat) // 256 * 256
    words = flat[:whole] if flat.storage_offset() % 8 == 0 else flat[:whole].clone()
    total = hashlib.sha256()
    for numbers in (words.view(torch.int64).view(-1, 32).sum(1), flat[whole:]):
        total.update(numbers.cpu().numpy().data)
    return total.hexdigest()


def hash_folder(folder: Path, weights: Iterable[Path]) -> str:
    """Hash the configuration and the weight files of a local folder, names included."""
    total = hashlib.sha256()
    for path in (folder / "config.json", *weights):
        total.update(json.dumps(path.name).encode())
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return f"sha256:{total.hexdigest()}"


def hash_declared(values: Mapping[str, Any]) -> str:
    """Hash the settings of an ablation or a metric.

    Settings may be numbers, texts, tensors, arrays, functions, and collections of them.
    """
    return hash_json(_to_json(values))


def _to_json(value: Any) -> Any:
    """Return `value` as JSON, with tensors and arrays as hashes of their numbers."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | np.generic):
        # Objects have no bytes to hash, only their representation.
        return (
            repr(value) if value.dtype.hasobject else [*_described(value), hashlib.sha256(value.tobytes()).hexdigest()]
        )
    if isinstance(value, Tensor):
        return [*_described(value), hashlib.sha256(_bytes(value)).hexdigest()]
    if isinstance(value, Mapping):
        return [[_to_json(key), _to_json(item)] for key, item in value.items()]
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
    """Return the name, source (or else byte code) and bound values of a function as JSON."""
    code = function.__code__
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):
        text = f"{code.co_code.hex()} {code.co_names} {[each for each in code.co_consts if not inspect.iscode(each)]}"
    bound = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # an empty cell
            bound.append(cell.cell_contents)
    # Bound functions count by name only, since they may refer back to this one.
    return [
        function.__qualname__,
        text,
        [value.__qualname__ if isinstance(value, FunctionType) else _to_json(value) for value in bound],
    ]


def _described(value: Tensor | np.ndarray | np.generic) -> list[Any]:
    return [list(value.shape), str(value.dtype)]


def _bytes(value: Tensor) -> memoryview:
    flat = value.detach().cpu().contiguous()
    # The strides of dimensions of length 0 or 1 may be arbitrary.
    return flat.as_strided((flat.numel(),), (1,)).view(torch.uint8).numpy().data


def model_state(hf: Any) -> tuple[Any, Any]:
    """Return fingerprints of a model's weights and hooks; see `weights_state`."""
    weights = [weight for weight in hf.parameters() if not weight.is_meta]
    hooks = {
        number: (
            *foreign(module._forward_hooks),
            *foreign(module._forward_pre_hooks),
            vars(module).get("forward"),
        )
        for number, module in enumerate(hf.modules())
    }
    return (
        [(weight.data_ptr(), weight.dtype, weight_sums(weight)) for weight in weights],
        {number: hook for number, hook in hooks.items() if hook != (None,)},
    )


def foreign(hooks: Mapping[int, Any]) -> list[int]:
    """Return the ids of the hooks that aren't hydrascope's own."""
    functions = {number: getattr(hook, "func", hook) for number, hook in hooks.items()}
    return [number for number, hook in functions.items() if not str(hook.__module__).startswith("hydrascope.")]
