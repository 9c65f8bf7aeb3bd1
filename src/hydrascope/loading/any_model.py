"""Let functions that take a loaded model take what `load_model` takes as an object, too."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

from transformers import PreTrainedModel

from hydrascope.loading.load import load_model
from hydrascope.loading.wrappers import is_wrapper

_Function = TypeVar("_Function", bound=Callable[..., Any])


def as_loaded(model: Any) -> Any:
    """Load a model of transformers or of another tool; return anything else as it is."""
    return load_model(model) if isinstance(model, PreTrainedModel) or is_wrapper(model) else model


def takes_any_model(function: _Function) -> _Function:
    """Make a function of a loaded model take a model of transformers or of another tool, too.

    Such a model is loaded, and proven, at each call: call `load_model` once for several. What is no model is passed on.
    """

    @wraps(function)
    def taking(model: Any, *arguments: Any, **options: Any) -> Any:
        return function(as_loaded(model), *arguments, **options)

    return cast(_Function, taking)
