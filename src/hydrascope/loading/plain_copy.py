"""Copy a model without the layers that other tools have put into it; the weights are shared.

- A compiled module becomes the module that was compiled.
- A component of TransformerLens' bridge becomes the module that it stands for. Query, key and value, which the bridge
  splits, are joined again where it has processed them.
- A layer with adapters of PEFT becomes a copy of its base layer with the active adapters merged, by PEFT's own method.
"""

import copy
import functools
import types
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from hydrascope.utils.class_names import is_of, package_of

_JOINED = ("q", "k", "v")
_NAMES = ("weight", "bias")

#: Architectures whose joint projection holds query, key and value of the first head, then those of the second, ….
_HEAD_BY_HEAD = ("gpt_neox", "bloom")


def is_plain(model: nn.Module) -> bool:
    """Whether `model` has no compiled modules, components of a bridge or adapters."""
    return not any(_is_compiled(each) or _is_bridged(each) or _is_adapted(each) for each in model.modules())


def plain_copy(model: Any, *, processed: bool = False) -> Any:
    """Return a copy of `model` without compiled modules, components of a bridge and adapters.

    It shares all weights but those that were merged or joined. Hooks of the user's are kept.

    Args:
        model: a transformers model.
        processed: whether a bridge has processed its weights.
    """
    return _copy(model, _join_all(model) if processed else {})


def has_adapters(model: nn.Module) -> bool:
    """Whether adapters of PEFT change what `model` computes."""
    return any(_is_adapted(module) and not module.disable_adapters for module in model.modules())


def _is_compiled(module: nn.Module) -> bool:
    own = vars(module)
    return (
        is_of(module, "torch", "OptimizedModule")
        or own.get("_compiled_call_impl") is not None
        or hasattr(own.get("forward"), "_torchdynamo_orig_callable")
    )


def _is_bridged(module: nn.Module) -> bool:
    """Whether it is a component of TransformerLens' bridge that stands for another module."""
    return _original(module) is not None and any(
        package_of(kind) == "transformer_lens" for kind in type(module).__mro__
    )


def _original(module: nn.Module) -> Any:
    return module._modules.get("_original_component")


def _is_adapted(module: nn.Module) -> Any:
    """Whether it is a layer that holds its base layer beside its adapters."""
    return any(package_of(kind) == "peft" for kind in type(module).__mro__) and (
        "base_layer" in module._modules or hasattr(module, "unload_and_optionally_merge_module")
    )


def _copy(module: nn.Module, copies: dict[int, tuple[nn.Module, Any]]) -> Any:
    """Return the plain copy of `module`.

    Args:
        module: the module.
        copies: by id, the modules that are copied already, with their copies. It keeps them alive: a merged layer would
            else give its id to the next one.
    """
    if id(module) in copies:
        return copies[id(module)][1]
    inside = _inside(module)
    if inside is not module:
        copies[id(module)] = module, _copy(inside, copies)
        return copies[id(module)][1]
    made = module.__class__.__new__(module.__class__)
    copies[id(module)] = module, made
    for name, value in vars(module).items():
        vars(made)[name] = _rebound(value, module, made)
    made._modules = {name: None if child is None else _copy(child, copies) for name, child in module._modules.items()}
    made._compiled_call_impl = None
    if hasattr(vars(made).get("forward"), "_torchdynamo_orig_callable"):
        original = vars(made).pop("forward")._torchdynamo_orig_callable
        if getattr(original, "__func__", None) is not type(made).forward:
            vars(made)["forward"] = _rebound(original, module, made)
    return made


def _inside(module: Any) -> Any:
    """Return the module that `module` wraps, or itself."""
    inside: Any = module
    if is_of(module, "torch", "OptimizedModule"):
        inside = module._orig_mod
    elif _is_bridged(module):
        inside = _original(module)
    elif _is_adapted(module):
        inside = _merged(module)
    return inside


@torch.no_grad()
def _merged(layer: Any) -> Any:
    """Return a copy of a layer's base layer with the adapters merged that the layer uses."""
    copied = copy.deepcopy(layer)
    if "base_layer" not in copied._modules:
        if copied.disable_adapters:
            return copied.original_module
        return copied.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
    if copied.disable_adapters:
        if copied.merged:
            copied.unmerge()
    elif not copied.merged:
        copied.merge()
    return copied.get_base_layer()


def _join_all(model: Any) -> dict[int, tuple[nn.Module, Any]]:
    """Return the joint projections, by id, with copies made of the bridge's q, k and v."""
    joined: dict[int, tuple[nn.Module, Any]] = {}
    heads = model.config.num_attention_heads if model.config.model_type in _HEAD_BY_HEAD else 1
    for module in model.modules():
        if _is_bridged(module) and {*_JOINED, "qkv"} <= set(module._modules):
            whole = _innermost(module._modules["qkv"])
            parts = [_innermost(module._modules[part]) for part in _JOINED]
            joined[id(whole)] = whole, _joined(whole, parts, heads)
    return joined


@torch.no_grad()
def _joined(whole: Any, parts: list[Any], heads: int) -> Any:
    """Return a copy of `whole` with the weights of its parts, which take turns `heads` times."""
    made = copy.deepcopy(whole)
    for name in _NAMES:
        values = [getattr(part, name) for part in parts]
        if all(value is not None for value in values):
            value = torch.stack([each.unflatten(0, (heads, -1)) for each in values], 1).flatten(0, 2)
            value = value.T if isinstance(whole, Conv1D) and name == "weight" else value
            setattr(made, name, nn.Parameter(value.contiguous(), requires_grad=False))
    return made


def _innermost(module: Any) -> Any:
    while _is_bridged(module):
        module = _original(module)
    return module


def _rebound(value: Any, old: nn.Module, new: nn.Module) -> Any:
    """Return an attribute of `old` for its copy: containers copied, methods bound to the copy."""
    if isinstance(value, dict | list | set):
        return copy.copy(value)
    if isinstance(value, types.MethodType) and value.__self__ is old:
        return types.MethodType(value.__func__, new)
    if isinstance(value, functools.partial):
        arguments = [new if each is old else each for each in value.args]
        return functools.update_wrapper(functools.partial(value.func, *arguments, **value.keywords), value)
    return value
