"""hydrascope: the instrument that shows how a language model repairs itself."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hydrascope._version import __version__ as __version__

if TYPE_CHECKING:
    from hydrascope import measures
    from hydrascope.ablations.ablation import Ablation, Counterfactual, Mean, Noise, Patches, Resample, Zero
    from hydrascope.analyses import attribution
    from hydrascope.analyses.faithfulness import faithfulness
    from hydrascope.analyses.mediation import interactions, mediation
    from hydrascope.analyses.path_patching import path_patching
    from hydrascope.analyses.responsibility import responsibility
    from hydrascope.analyses.shapley import shapley
    from hydrascope.components.component import Component, Override
    from hydrascope.components.experiments import Interactions, Mediation
    from hydrascope.engines.clean.activations import CleanActivations
    from hydrascope.engines.readouts import Direction, Logit, LogitDifference, Placebo
    from hydrascope.explorer.notebook import view
    from hydrascope.loading.load import load_model
    from hydrascope.measures.ranking import rank
    from hydrascope.measures.table import tidy
    from hydrascope.models.architectures import Anatomy, declare
    from hydrascope.models.language_model import LanguageModel
    from hydrascope.prompts.load import load_prompts
    from hydrascope.prompts.prompt import Prompt, PromptSet
    from hydrascope.reports.html import report
    from hydrascope.runs.cost import cost
    from hydrascope.runs.sweep import run, sweep
    from hydrascope.storage.reader import open_results
    from hydrascope.utils.errors import HydrascopeError

__all__ = [
    "Ablation",
    "Anatomy",
    "CleanActivations",
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
    "Override",
    "Patches",
    "Placebo",
    "Prompt",
    "PromptSet",
    "Resample",
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
    "ablations.ablation": ("Ablation", "Counterfactual", "Mean", "Noise", "Patches", "Resample", "Zero"),
    "analyses.faithfulness": ("faithfulness",),
    "analyses.mediation": ("interactions", "mediation"),
    "analyses.path_patching": ("path_patching",),
    "analyses.responsibility": ("responsibility",),
    "analyses.shapley": ("shapley",),
    "components.component": ("Component", "Override"),
    "components.experiments": ("Interactions", "Mediation"),
    "engines.clean.activations": ("CleanActivations",),
    "engines.readouts": ("Direction", "Logit", "LogitDifference", "Placebo"),
    "explorer.notebook": ("view",),
    "loading.load": ("load_model",),
    "measures.ranking": ("rank",),
    "measures.table": ("tidy",),
    "models.architectures": ("Anatomy", "declare"),
    "models.language_model": ("LanguageModel",),
    "prompts.load": ("load_prompts",),
    "prompts.prompt": ("Prompt", "PromptSet"),
    "reports.html": ("report",),
    "runs.cost": ("cost",),
    "runs.sweep": ("run", "sweep"),
    "storage.reader": ("open_results",),
    "utils.errors": ("HydrascopeError",),
}

#: Packages that are public under their own names; imported likewise.
_PACKAGES = {"attribution": "analyses.attribution", "measures": "measures"}


def __getattr__(name: str) -> Any:
    """A public name, from the module that defines it."""
    if name in _PACKAGES:
        return import_module(f"{__name__}.{_PACKAGES[name]}")
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
