"""Let functions of a loaded model take the user's own object, and compute in plain PyTorch."""

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, TypeVar, cast, get_args

from transformers import PreTrainedModel

from hydrascope.loading.load import load_model
from hydrascope.loading.wrappers import is_wrapper
from hydrascope.models.torch_state import plain_torch

_Function = TypeVar("_Function", bound=Callable[..., Any])


def as_loaded(model: Any) -> Any:
    """Load a model of transformers or of another tool; return anything else as it is."""
    return load_model(model) if isinstance(model, PreTrainedModel) or is_wrapper(model) else model


def takes_any_model(function: _Function) -> _Function:
    """Make a function of a loaded model take a model of transformers or of another tool, too.

    Such a model is loaded, and proven, at each call: call `load_model` once for several. What is no model is passed on.
    The caller's settings of PyTorch change no number (`plain_torch`). A keyword that the function doesn't declare is
    refused, since it would be handed on and might be ignored.
    """
    known = _keywords(function)

    @wraps(function)
    def taking(model: Any, *arguments: Any, **options: Any) -> Any:
        for name in options.keys() - known:
            hint = ". Metrics of the same runs: hs.sweep(…, metrics=…)" if name == "metrics" else ""
            raise TypeError(f"{function.__name__}() takes no {name}=: it takes {', '.join(sorted(known))}{hint}")
        with plain_torch():
            return function(as_loaded(model), *arguments, **options)

    return cast(_Function, taking)


def _keywords(function: Callable[..., Any]) -> frozenset[str]:
    """Return the names of all parameters, and the keys of `**options: Unpack[…]`."""
    names: set[str] = set()
    for name, parameter in signature(function).parameters.items():
        if parameter.kind is not parameter.VAR_KEYWORD:
            names.add(name)
        else:
            (declared,) = get_args(parameter.annotation)
            names |= declared.__required_keys__ | declared.__optional_keys__
    return frozenset(names)
