"""hydrascope measures how a language model repairs itself after an ablation."""

from typing import TYPE_CHECKING

from hydrascope._version import __version__ as __version__
from hydrascope.utils.lazy import export_lazily

if TYPE_CHECKING:
    from hydrascope import ablations as ablations
    from hydrascope import analyses as analyses
    from hydrascope import causal as causal
    from hydrascope import measures as measures
    from hydrascope import models as models
    from hydrascope import prompts as prompts
    from hydrascope import reports as reports
    from hydrascope.ablations.ablation import Counterfactual as Counterfactual
    from hydrascope.ablations.ablation import Mean as Mean
    from hydrascope.ablations.ablation import Noise as Noise
    from hydrascope.ablations.ablation import Resample as Resample
    from hydrascope.ablations.ablation import Zero as Zero
    from hydrascope.ablations.optimal import Optimal as Optimal
    from hydrascope.analyses.activations import activations as activations
    from hydrascope.analyses.generation import override as override
    from hydrascope.components.component import Component as Component
    from hydrascope.components.component import Override as Override
    from hydrascope.components.experiments import Interactions as Interactions
    from hydrascope.components.experiments import Mediation as Mediation
    from hydrascope.components.experiments import Split as Split
    from hydrascope.dictionaries.dictionary import Dictionary as Dictionary
    from hydrascope.engines.directions import Direction as Direction
    from hydrascope.engines.directions import Directions as Directions
    from hydrascope.engines.readouts import Logit as Logit
    from hydrascope.engines.readouts import LogitDifference as LogitDifference
    from hydrascope.engines.readouts import Placebo as Placebo
    from hydrascope.explorer.notebook import view as view
    from hydrascope.loading.load import load_model as load_model
    from hydrascope.measures.table import tidy as tidy
    from hydrascope.models.architectures import declare as declare
    from hydrascope.prompts.load import load_prompts as load_prompts
    from hydrascope.prompts.prompt import Prompt as Prompt
    from hydrascope.reports.pages import report as report
    from hydrascope.runs.cost import cost as cost
    from hydrascope.runs.sweep import sweep as sweep
    from hydrascope.storage.activation_file import open_activations as open_activations
    from hydrascope.storage.reader import open_results as open_results
    from hydrascope.utils.errors import HydrascopeError as HydrascopeError

export_lazily(
    globals(),
    {
        "ablations": (),
        "ablations.ablation": ("Counterfactual", "Mean", "Noise", "Resample", "Zero"),
        "ablations.optimal": ("Optimal",),
        "analyses": (),
        "analyses.activations": ("activations",),
        "analyses.generation": ("override",),
        "causal": (),
        "components.component": ("Component", "Override"),
        "components.experiments": ("Interactions", "Mediation", "Split"),
        "dictionaries.dictionary": ("Dictionary",),
        "engines.directions": ("Direction", "Directions"),
        "engines.readouts": ("Logit", "LogitDifference", "Placebo"),
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
        "reports.pages": ("report",),
        "runs.cost": ("cost",),
        "runs.sweep": ("sweep",),
        "storage.activation_file": ("open_activations",),
        "storage.reader": ("open_results",),
        "utils.errors": ("HydrascopeError",),
    },
)
