"""hydrascope: the instrument that shows how a language model repairs itself."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydrascope.ablation import Mean, Noise, Resample, Zero
    from hydrascope.components import Component
    from hydrascope.errors import HydrascopeError
    from hydrascope.experiment import run, sweep
    from hydrascope.loading import load_model
    from hydrascope.model import LanguageModel
    from hydrascope.prompts import Prompt, PromptSet, load_prompts
    from hydrascope.store import open_results

__version__ = "0.1.0"

__all__ = [
    "Component",
    "HydrascopeError",
    "LanguageModel",
    "Mean",
    "Noise",
    "Prompt",
    "PromptSet",
    "Resample",
    "Zero",
    "load_model",
    "load_prompts",
    "open_results",
    "run",
    "sweep",
]

_MODULES = ("ablation", "components", "errors", "experiment", "loading", "model", "prompts", "store")


def __getattr__(name: str) -> Any:
    """A public name, from the module that defines it; imported only when asked for, since PyTorch takes seconds."""
    if name in __all__:
        for module in (import_module(f"{__name__}.{module}") for module in _MODULES):
            value = getattr(module, name, None)
            if getattr(value, "__module__", None) == module.__name__:
                return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
