"""Ablations: the values that an ablated component writes instead of its own."""

from typing import TYPE_CHECKING

from hydrascope.utils.lazy import lazy_names

if TYPE_CHECKING:
    from hydrascope.ablations.ablation import Ablation, Counterfactual, Mean, Noise, Patches, Resample, Zero
    from hydrascope.engines.clean.activations import CleanActivations

__all__ = ["Ablation", "CleanActivations", "Counterfactual", "Mean", "Noise", "Patches", "Resample", "Zero"]

__getattr__ = lazy_names(
    __name__,
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
        )
    },
)
