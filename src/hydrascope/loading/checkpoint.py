"""Check a model's configuration and weight files before the model is built."""

import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from hydrascope.utils import input_files
from hydrascope.utils.errors import HydrascopeError

#: Sizes in the configuration. No model has a size above the count of numbers in its weights.
_SIZES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "intermediate_size"),
)
_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len")
#: Causal masks, and the number that replaced minus infinity, in older files.
_MASK = re.compile(r"\.(attn|attention)\.(masked_)?bias$")
#: What wrappers put into the names of weights, as for `re.sub`: torch.compile and FSDP, of single blocks too, and
#: DataParallel.
_WRAPPED = {r"^module\.": "", r"(^|\.)(?:_orig_mod|_fsdp_wrapped_module)\.": r"\1"}
_INDEX = "model.safetensors.index.json"


def require_possible(name: str, config: Any, tensors: int, numbers: int) -> None:
    """Refuse a configuration that is impossible, or too large for the model's weights.

    Args:
        name: the model's name, for messages.
        config: the configuration of a text model.
        tensors: the number of tensors in the model's weights.
        numbers: the number of values in all tensors together.

    Raises:
        HydrascopeError: a size is no positive whole number, or larger than the weights allow.
    """
    for key in (*_SIZES, *_CONTEXT):
        value = getattr(config, key, None)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise HydrascopeError(f"the configuration of {name} is wrong: {key} is {value!r}: give a number from 1 on")
    for key in _SIZES:
        value, most = getattr(config, key, None), tensors if key == "num_hidden_layers" else numbers
        if value is not None and value > most:
            limit = f"{tensors:,} tensors" if key == "num_hidden_layers" else f"{numbers:,} numbers"
            raise HydrascopeError(f"the configuration of {name} is wrong: {key} is {value}, its weights are {limit}")
    if config.vocab_size * config.hidden_size > numbers:
        raise HydrascopeError(
            f"the configuration of {name} is wrong: {config.vocab_size} tokens (vocab_size) of {config.hidden_size} "
            f"numbers (hidden_size) are more than the {numbers:,} numbers of its weights"
        )


def weight_files(name: str, folder: Path) -> list[Path]:
    """Return the weight files of a model's folder, in order.

    Raises:
        HydrascopeError: there are none, one can't be read, or the index names a file outside the folder.
    """
    index = folder / _INDEX
    names = {path.name for path in folder.glob("*.safetensors")}
    if index.exists() and not (folder / "model.safetensors").exists():
        try:
            names |= set(json.loads(input_files.read(index, "the list of weights"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise HydrascopeError(f"cannot load the model {name}: {index} lists no weights: fetch it again") from error
    if not names:
        raise HydrascopeError(
            f"cannot load the model {name}: it has no safetensors weights; other formats can run code and are not read"
        )
    paths = [folder / str(file_name) for file_name in sorted(names, key=str)]
    for path in paths:
        if not _is_inside(path, folder):
            raise HydrascopeError(
                f"cannot load the model {name}: its weights {path} are outside its folder, where they can change "
                "unseen: copy them into it"
            )
        input_files.require_readable(path, "weights")
    return paths


def _is_inside(path: Path, folder: Path) -> bool:
    """Whether `path` lies in `folder`, or is a link to the `blobs` of the hub's cache."""
    if ".." in path.relative_to(folder).parts if path.is_relative_to(folder) else True:
        return False
    here = folder.resolve()
    homes = [here, here.parents[1] / "blobs"] if here.parent.name == "snapshots" else [here]
    # Unlike Path.resolve, realpath accepts links that form a loop; reading them fails later with its own message.
    return any(Path(os.path.realpath(path)).is_relative_to(home) for home in homes)


def shapes(paths: Iterable[Path]) -> dict[str, list[int]]:
    """Return the shape of each tensor in safetensors files, read from the files' headers.

    Raises:
        SafetensorError: a file is damaged.
    """
    shapes_by_name: dict[str, list[int]] = {}
    for path in paths:
        with safe_open(path, "pt") as weights:
            shapes_by_name |= {key: weights.get_slice(key).get_shape() for key in weights.keys()}  # noqa: SIM118
    return shapes_by_name


def unwrapped_names(names: Collection[str]) -> dict[str, str]:
    """Return the names without what wrappers put into them, for each name that has any of it.

    Weights are named so if the state of a compiled or parallel model was saved, not that of the model inside.

    >>> unwrapped_names(["module._orig_mod.lm_head.weight", "model.norm.weight"])
    {'module._orig_mod.lm_head.weight': 'lm_head.weight'}
    """
    found = {}
    for name in names:
        plain = name
        for pattern, replacement in _WRAPPED.items():
            plain = re.sub(pattern, replacement, plain)
        if plain != name:
            found[name] = plain
    # Of two weights with one name neither is taken.
    kept = [*found.values(), *(name for name in names if name not in found)]
    return found if len(set(kept)) == len(kept) else {}


def unused(keys: Iterable[str], shapes: Mapping[str, list[int]]) -> list[str]:
    """Return the unused tensors that are weights, leaving out the causal masks of older files.

    >>> unused(["h.0.attn.bias", "h.2.mlp.bias"], {"h.0.attn.bias": [1, 1, 64, 64], "h.2.mlp.bias": [64]})
    ['h.2.mlp.bias']
    """
    return [key for key in sorted(keys) if not (_MASK.search(key) and len(shapes.get(key, ())) != 1)]
