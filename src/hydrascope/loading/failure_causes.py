"""Find what other code has put into a model that fails the self-check, or made of it.

What can be taken away for a moment, as a hook, is named only if the self-check then passes.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from hydrascope.loading.soundness import quantised_weight
from hydrascope.models.fingerprint import foreign
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.offload import named_tensors

_HOOKS = ("_forward_hooks", "_forward_pre_hooks")
_ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
#: The packages of modules that the self-check knows, and Python's own.
_OWN = ("torch", "transformers", "hydrascope", "accelerate", "builtins")
_ADAPTER = re.compile(r"lora|adapter|dora|ia3", re.IGNORECASE)


def known_cause(model: LanguageModel, holds: Callable[[LanguageModel], bool]) -> str:
    """Return what is wrong with `model` and what to do; "" if nothing known is.

    Args:
        model: a model that fails the self-check.
        holds: whether a model passes it.
    """
    causes = (_not_finite(model), _quantised(model), _foreign_modules(model), _dtypes(model), _tuples(model))
    found = next(filter(None, causes), "")
    return found or _hooks(model, holds) or _replaced(model, holds) or _attention(model, holds)


def cause_of_error(model: LanguageModel) -> str:
    """Return why `model` can't be run at all; "" if no cause is known."""
    return next(filter(None, (_quantised(model), _dtypes(model), _tuples(model))), "")


def _not_finite(model: LanguageModel) -> str:
    for name, value in named_tensors(model.hf):
        if value.is_floating_point() and not value.is_meta and not torch.isfinite(value.detach()).all():
            return f"its weights are not finite: NaN or infinity in {name}"
    return ""


def _quantised(model: LanguageModel) -> str:
    found = quantised_weight(model.hf)
    return found and f"its weights are quantised ({found}): load the model without quantisation"


def _foreign_modules(model: LanguageModel) -> str:
    whole_is_foreign = type(model.hf).__module__.partition(".")[0] not in _OWN
    for name, module in model.hf.named_modules():
        kind = type(module)
        package = kind.__module__.partition(".")[0]
        if package in _OWN:
            continue
        if _ADAPTER.search(kind.__name__):
            return f"{name} is a {kind.__name__}, an adapter that isn't merged: merge it into the weights"
        if any(_ADAPTER.search(part) for part, _ in module.named_parameters()):
            return f"{name} ({kind.__name__}) holds an adapter that isn't merged: merge it into the weights"
        if not whole_is_foreign:
            return f"{name} is a {kind.__name__} of {kind.__module__}, which changes the model: give the original model"
    return ""


def _dtypes(model: LanguageModel) -> str:
    """Name projections of several dtypes; norms alone may be wider than the rest."""
    first: dict[torch.dtype, str] = {}
    for name, value in model.hf.named_parameters():
        if value.ndim > 1:
            first.setdefault(value.dtype, name)
    if len(first) < 2:
        return ""
    found = " and ".join(f"{name} is {str(dtype).removeprefix('torch.')}" for dtype, name in first.items())
    return f"its weights have several dtypes ({found}): give all one, as model.to(torch.float32) does"


def _tuples(model: LanguageModel) -> str:
    if getattr(model.config, "return_dict", True):
        return ""
    return "its configuration asks for tuples (return_dict=False): set model.config.return_dict = True"


def _attention(model: LanguageModel, holds: Callable[[LanguageModel], bool]) -> str:
    chosen = getattr(model.config, "_attn_implementation", None)
    if chosen is None or chosen in _ATTENTION:
        return ""
    try:
        model.hf.set_attn_implementation("sdpa")
        passes = holds(model)
    except Exception:  # not every model has it
        passes = False
    finally:
        model.hf.set_attn_implementation(chosen)
    if not passes:
        return ""
    return f"its attention is computed by {chosen!r}, another tool's: choose one with set_attn_implementation('sdpa')"


def _hooks(model: LanguageModel, holds: Callable[[LanguageModel], bool]) -> str:
    taken = [
        (name or type(module).__name__, module, kind)
        for name, module in model.hf.named_modules()
        for kind in _HOOKS
        if foreign(getattr(module, kind))
    ]
    if not taken:
        return ""
    with _without(((module, kind, OrderedDict()) for _, module, kind in taken)):
        passes = holds(model)
    if not passes:
        return ""
    return f"it holds without the hooks on {_listed(name for name, _, _ in taken)}: remove them, with their handles"


def _replaced(model: LanguageModel, holds: Callable[[LanguageModel], bool]) -> str:
    """Name methods that other code has put over those of modules.

    Those of accelerate fetch weights, and must stay.
    """
    taken = [
        (name or type(module).__name__, module)
        for name, module in model.hf.named_modules()
        if "forward" in vars(module) and not hasattr(module, "_hf_hook")
    ]
    if not taken:
        return ""
    with _without(((module, "forward", None) for _, module in taken)):
        passes = holds(model)
    if not passes:
        return ""
    return f"it holds without the forward methods put over those of {_listed(name for name, _ in taken)}: undo that"


@contextmanager
def _without(changes: Iterable[tuple[nn.Module, str, Any]]) -> Iterator[None]:
    """Put other values in place of attributes, for the length of the context.

    None takes an attribute away.
    """
    before = []
    try:
        for module, name, value in changes:
            before.append((module, name, vars(module)[name]))
            if value is None:
                del vars(module)[name]
            else:
                vars(module)[name] = value
        yield
    finally:
        for module, name, value in before:
            vars(module)[name] = value


def _listed(names: Iterable[str]) -> str:
    """Return the first three names, and how many others there are."""
    every = list(dict.fromkeys(names))
    more = f" and {len(every) - 3:,} others" if len(every) > 3 else ""
    return ", ".join(every[:3]) + more
