"""Let functions of a loaded model take the user's own object, and compute in plain PyTorch."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

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
    The caller's settings of PyTorch change no number (`plain_torch`).
    """

    @wraps(function)
    def taking(model: Any, *arguments: Any, **options: Any) -> Any:
        with plain_torch():
            return function(as_loaded(model), *arguments, **options)

    return cast(_Function, taking)
