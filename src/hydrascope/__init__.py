"""hydrascope: the instrument that shows how a language model repairs itself."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydrascope.ablation import Mean, Noise, Resample, Zero
    from hydrascope.anatomy import Anatomy, declare
    from hydrascope.components import Component
    from hydrascope.errors import HydrascopeError
    from hydrascope.experiment import run, sweep
    from hydrascope.loading import load_model
    from hydrascope.model import LanguageModel
    from hydrascope.prompt_sources import load_prompts
    from hydrascope.prompts import Prompt, PromptSet
    from hydrascope.store import open_results

__version__ = "0.1.0"

__all__ = [
    "Anatomy",
    "Component",
    "HydrascopeError",
    "LanguageModel",
    "Mean",
    "Noise",
    "Prompt",
    "PromptSet",
    "Resample",
    "Zero",
    "declare",
    "load_model",
    "load_prompts",
    "open_results",
    "run",
    "sweep",
]

#: Where each public name is defined; imported when it is asked for, since PyTorch takes seconds.
_HOMES = {
    "ablation": ("Mean", "Noise", "Resample", "Zero"),
    "anatomy": ("Anatomy", "declare"),
    "components": ("Component",),
    "errors": ("HydrascopeError",),
    "experiment": ("run", "sweep"),
    "loading": ("load_model",),
    "model": ("LanguageModel",),
    "prompt_sources": ("load_prompts",),
    "prompts": ("Prompt", "PromptSet"),
    "store": ("open_results",),
}


def __getattr__(name: str) -> Any:
    """A public name, from the module that defines it."""
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
