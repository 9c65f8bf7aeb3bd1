"""Rotary tables that depend on the length of prompts: dynamic NTK and longrope.

transformers computes one table for a whole batch, and dynamic NTK remembers its longest prompt. Here a prompt gets the
table that it would get alone in a fresh model: only prompts with the same table may share a batch, and every forward
pass starts from the original table.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def varying_tables(hf: nn.Module) -> list[nn.Module]:
    """Return the rotary modules with a table that depends on a prompt's length; mostly none."""
    return [module for module in hf.modules() if any(map(_is_varying, _rope_types(module).values()))]


def table_key(modules: Sequence[nn.Module], length: int) -> tuple[int, ...]:
    """Return a key of the tables for one prompt of `length` tokens.

    Equal keys mean equal tables.
    """
    return tuple(
        _key_of(module, prefix, kind, length) for module in modules for prefix, kind in _rope_types(module).items()
    )


def is_dynamic(module: nn.Module) -> bool:
    """Whether a rotary module is of dynamic NTK, which fits its table to a prompt of any length."""
    return any("dynamic" in kind for kind in _rope_types(module).values())


def context_length(config: Any, modules: Sequence[nn.Module]) -> int | None:
    """Return the longest prompt that a model takes, in tokens; None if there is no limit."""
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        if getattr(config, name, None) is not None:
            # Dynamic NTK fits its table to any length.
            return None if any(map(is_dynamic, modules)) else int(getattr(config, name))
    return None


@contextmanager
def fresh_tables(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Start each forward pass from the original tables; restore the tables afterwards."""
    before = [(module, *_state(module)) for module in modules]
    handles = [module.register_forward_pre_hook(_reset) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, values, buffers in before:
            _restore(module, values, buffers)


def _rope_types(module: nn.Module) -> dict[str, str]:
    """Return the rope type for each prefix of attributes: "", or `full_attention_` and the like."""
    kinds = getattr(module, "rope_type", None)
    if isinstance(kinds, Mapping):
        return {f"{layer_type}_": kind for layer_type, kind in kinds.items()}
    return {"": kinds} if isinstance(kinds, str) else {}


def _is_varying(kind: str) -> bool:
    return "dynamic" in kind or kind == "longrope"


def _key_of(module: Any, prefix: str, kind: str, length: int) -> int:
    if "dynamic" in kind:
        return length if length > module.original_max_seq_len else 0
    if kind == "longrope":
        return int(length > _parameters(module, prefix)["original_max_position_embeddings"])
    return 0


def _parameters(module: Any, prefix: str) -> dict[str, Any]:
    parameters: dict[str, Any] = module.config.rope_parameters
    return parameters[prefix.removesuffix("_")] if prefix else parameters


def _reset(module: Any, inputs: tuple[Any, ...]) -> None:
    for prefix, kind in _rope_types(module).items():
        original = getattr(module, f"{prefix}original_inv_freq", None)
        if "dynamic" in kind and original is not None:
            module.register_buffer(f"{prefix}inv_freq", original.clone(), persistent=False)
            setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)


def _state(module: nn.Module) -> tuple[dict[str, Any], dict[str, tuple[Any, Any]]]:
    """Return the module's public attributes, and its buffers with copies of their numbers."""
    values = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    buffers = module._buffers.items()
    return values, {name: (buffer, None if buffer is None else buffer.clone()) for name, buffer in buffers}


@torch.no_grad()
def _restore(module: nn.Module, values: Mapping[str, Any], buffers: Mapping[str, tuple[Any, Any]]) -> None:
    for name in [name for name in vars(module) if not name.startswith("_")]:
        delattr(module, name)
    for name, value in values.items():
        setattr(module, name, value)
    module._buffers.clear()
    for name, (buffer, copy) in buffers.items():
        module._buffers[name] = buffer if buffer is None else buffer.copy_(copy)
