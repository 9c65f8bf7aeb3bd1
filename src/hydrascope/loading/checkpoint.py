"""A model's folder, looked over before anything is built from it: its configuration, and where its weights are."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from hydrascope.utils import input_files
from hydrascope.utils.errors import HydrascopeError

#: Sizes that every tensor of a model is made of. None of them is more than the numbers in its weights.
_SIZES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "intermediate_size"),
)
_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len")
#: A square of ones and zeros, and the number that stood for minus infinity.
_MASK = re.compile(r"\.(attn|attention)\.(masked_)?bias$")
_INDEX = "model.safetensors.index.json"


def require_possible(name: str, config: Any, tensors: int, numbers: int) -> None:
    """Refuse a configuration that no model can have, or none with as few weights.

    Args:
        config: of a text model.
        tensors: how many there are in its weights.
        numbers: how many they hold.

    Raises:
        HydrascopeError: a size is no number, or beyond what the weights can be; the message names it.
    """
    for key in (*_SIZES, *_CONTEXT):
        value = getattr(config, key, None)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise HydrascopeError(f"the configuration of {name} is wrong: {key} is {value!r}: give a number from 1 on")
    for key in _SIZES:
        value, most = getattr(config, key, None), tensors if key == "num_hidden_layers" else numbers
        if value is not None and value > most:
            held = f"{tensors:,} tensors" if key == "num_hidden_layers" else f"{numbers:,} numbers"
            raise HydrascopeError(f"the configuration of {name} is wrong: {key} is {value}, its weights are {held}")
    if config.vocab_size * config.hidden_size > numbers:
        raise HydrascopeError(
            f"the configuration of {name} is wrong: {config.vocab_size} tokens (vocab_size) of {config.hidden_size} "
            f"numbers (hidden_size) are more than the {numbers:,} numbers of its weights"
        )


def weight_files(name: str, folder: Path) -> list[Path]:
    """The files in `folder` that its weights are read from, in order.

    Raises:
        HydrascopeError: there are none, one can't be read, or the index names one that is elsewhere.
    """
    index = folder / _INDEX
    names = {path.name for path in folder.glob("*.safetensors")}
    if index.exists() and not (folder / "model.safetensors").exists():
        try:
            names |= set(json.loads(input_files.read(index, "the list of weights"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise HydrascopeError(f"cannot load the model {name}: {index} lists no weights: get it again") from error
    if not names:
        raise HydrascopeError(
            f"cannot load the model {name}: it has no safetensors weights; other formats can run code and are not read"
        )
    paths = [folder / str(each) for each in sorted(names, key=str)]
    for path in paths:
        if not _is_inside(path, folder):
            raise HydrascopeError(
                f"cannot load the model {name}: its weights {path} are outside its folder, where they can change "
                "unseen: copy them into it"
            )
        input_files.require_readable(path, "weights")
    return paths


def _is_inside(path: Path, folder: Path) -> bool:
    """Whether `path` is a file of `folder`; in the hub's cache, these are links to its `blobs`."""
    if ".." in path.relative_to(folder).parts if path.is_relative_to(folder) else True:
        return False
    here = folder.resolve()
    homes = [here, here.parents[1] / "blobs"] if here.parent.name == "snapshots" else [here]
    # Unlike Path.resolve, where links lead to each other, too: they can't be read, which is said later.
    return any(Path(os.path.realpath(path)).is_relative_to(home) for home in homes)


def shapes(paths: list[Path]) -> dict[str, list[int]]:
    """The shape of each tensor in safetensors files, from their heads alone.

    Raises:
        SafetensorError: a file is damaged.
    """
    found: dict[str, list[int]] = {}
    for path in paths:
        with safe_open(path, "pt") as weights:
            found |= {key: weights.get_slice(key).get_shape() for key in weights.keys()}  # noqa: SIM118
    return found


def unused(keys: Iterable[str], shapes: Mapping[str, list[int]]) -> list[str]:
    """Which of the weights that a model has no place for are weights: older files keep causal masks among them.

    >>> unused(["h.0.attn.bias", "h.2.mlp.bias"], {"h.0.attn.bias": [1, 1, 64, 64], "h.2.mlp.bias": [64]})
    ['h.2.mlp.bias']
    """
    return [key for key in sorted(keys) if not (_MASK.search(key) and len(shapes.get(key, ())) != 1)]
