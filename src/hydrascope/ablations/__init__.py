"""Ablations: the values that an ablated component writes instead of its own."""

from typing import TYPE_CHECKING

from hydrascope.utils.lazy import export_lazily

if TYPE_CHECKING:
    from hydrascope.ablations.ablation import Ablation as Ablation
    from hydrascope.ablations.ablation import Counterfactual as Counterfactual
    from hydrascope.ablations.ablation import Mean as Mean
    from hydrascope.ablations.ablation import Noise as Noise
    from hydrascope.ablations.ablation import Patches as Patches
    from hydrascope.ablations.ablation import Resample as Resample
    from hydrascope.ablations.ablation import Zero as Zero
    from hydrascope.ablations.optimal import Optimal as Optimal
    from hydrascope.ablations.same_size import SameSize as SameSize
    from hydrascope.engines.clean.activations import CleanActivations as CleanActivations

export_lazily(
    globals(),
    {
        "ablation": (
            "Ablation",
            "CleanActivations",
            "Counterfactual",
            "Mean",
            "Noise",
            "Patches",
            "Resample",
            "Zero",
        ),
        "optimal": ("Optimal",),
        "same_size": ("SameSize",),
    },
)
