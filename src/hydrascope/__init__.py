"""hydrascope: the instrument that shows how a language model repairs itself."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydrascope import attribution, measures
    from hydrascope.ablation import Ablation, Counterfactual, Mean, Noise, Patches, Resample, Zero
    from hydrascope.anatomy import Anatomy, declare
    from hydrascope.bank import CleanRuns
    from hydrascope.circuits import faithfulness
    from hydrascope.components import Component, Run
    from hydrascope.costs import cost
    from hydrascope.errors import HydrascopeError
    from hydrascope.experiments import Interactions, Mediation
    from hydrascope.explore.notebook import view
    from hydrascope.fair_importance import shapley
    from hydrascope.loading import load_model
    from hydrascope.measures.ranking import rank
    from hydrascope.model import LanguageModel
    from hydrascope.page import report
    from hydrascope.path_effects import path_patching
    from hydrascope.prompt_sources import load_prompts
    from hydrascope.prompts import Prompt, PromptSet
    from hydrascope.readouts import Direction, Logit, LogitDifference, Placebo
    from hydrascope.responsible import responsibility
    from hydrascope.runs import run, sweep
    from hydrascope.store import open_results
    from hydrascope.table import tidy
    from hydrascope.who_repairs import interactions, mediation

__version__ = "0.1.0"

__all__ = [
    "Ablation",
    "Anatomy",
    "CleanRuns",
    "Component",
    "Counterfactual",
    "Direction",
    "HydrascopeError",
    "Interactions",
    "LanguageModel",
    "Logit",
    "LogitDifference",
    "Mean",
    "Mediation",
    "Noise",
    "Patches",
    "Placebo",
    "Prompt",
    "PromptSet",
    "Resample",
    "Run",
    "Zero",
    "attribution",
    "cost",
    "declare",
    "faithfulness",
    "interactions",
    "load_model",
    "load_prompts",
    "measures",
    "mediation",
    "open_results",
    "path_patching",
    "rank",
    "report",
    "responsibility",
    "run",
    "shapley",
    "sweep",
    "tidy",
    "view",
]

#: Where each public name is defined; imported when it is asked for, since PyTorch takes seconds.
_HOMES = {
    "ablation": ("Ablation", "Counterfactual", "Mean", "Noise", "Patches", "Resample", "Zero"),
    "anatomy": ("Anatomy", "declare"),
    "bank": ("CleanRuns",),
    "circuits": ("faithfulness",),
    "components": ("Component", "Run"),
    "costs": ("cost",),
    "errors": ("HydrascopeError",),
    "experiments": ("Interactions", "Mediation"),
    "explore.notebook": ("view",),
    "fair_importance": ("shapley",),
    "loading": ("load_model",),
    "measures.ranking": ("rank",),
    "model": ("LanguageModel",),
    "path_effects": ("path_patching",),
    "page": ("report",),
    "prompt_sources": ("load_prompts",),
    "prompts": ("Prompt", "PromptSet"),
    "readouts": ("Direction", "Logit", "LogitDifference", "Placebo"),
    "responsible": ("responsibility",),
    "runs": ("run", "sweep"),
    "store": ("open_results",),
    "table": ("tidy",),
    "who_repairs": ("interactions", "mediation"),
}

#: Packages that are public under their own names; imported likewise.
_PACKAGES = ("attribution", "measures")


def __getattr__(name: str) -> Any:
    """A public name, from the module that defines it."""
    if name in _PACKAGES:
        return import_module(f"{__name__}.{name}")
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
