"""hydrascope measures how a language model repairs itself after an ablation."""

from typing import TYPE_CHECKING

from hydrascope._version import __version__ as __version__
from hydrascope.utils.lazy import lazy_names

if TYPE_CHECKING:
    from hydrascope import ablations, analyses, causal, measures, models, prompts, reports
    from hydrascope.ablations.ablation import Counterfactual, Mean, Noise, Resample, Zero
    from hydrascope.components.component import Component, Override
    from hydrascope.components.experiments import Interactions, Mediation
    from hydrascope.engines.readouts import Direction, Logit, LogitDifference, Placebo
    from hydrascope.explorer.notebook import view
    from hydrascope.loading.load import load_model
    from hydrascope.measures.table import tidy
    from hydrascope.models.architectures import declare
    from hydrascope.prompts.load import load_prompts
    from hydrascope.prompts.prompt import Prompt
    from hydrascope.reports.kinds import report
    from hydrascope.runs.cost import cost
    from hydrascope.runs.sweep import sweep
    from hydrascope.storage.reader import open_results
    from hydrascope.utils.errors import HydrascopeError

__all__ = [
    "Component",
    "Counterfactual",
    "Direction",
    "HydrascopeError",
    "Interactions",
    "Logit",
    "LogitDifference",
    "Mean",
    "Mediation",
    "Noise",
    "Override",
    "Placebo",
    "Prompt",
    "Resample",
    "Zero",
    "ablations",
    "analyses",
    "causal",
    "cost",
    "declare",
    "load_model",
    "load_prompts",
    "measures",
    "models",
    "open_results",
    "prompts",
    "report",
    "reports",
    "sweep",
    "tidy",
    "view",
]

__getattr__ = lazy_names(
    __name__,
    {
        "ablations": (),
        "ablations.ablation": ("Counterfactual", "Mean", "Noise", "Resample", "Zero"),
        "analyses": (),
        "causal": (),
        "components.component": ("Component", "Override"),
        "components.experiments": ("Interactions", "Mediation"),
        "engines.readouts": ("Direction", "Logit", "LogitDifference", "Placebo"),
        "explorer.notebook": ("view",),
        "loading.load": ("load_model",),
        "measures": (),
        "measures.table": ("tidy",),
        "models": (),
        "models.architectures": ("declare",),
        "prompts": (),
        "prompts.load": ("load_prompts",),
        "prompts.prompt": ("Prompt",),
        "reports": (),
        "reports.kinds": ("report",),
        "runs.cost": ("cost",),
        "runs.sweep": ("sweep",),
        "storage.reader": ("open_results",),
        "utils.errors": ("HydrascopeError",),
    },
)
