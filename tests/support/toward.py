"""An ablation that goes only a part of the way, or beyond: what finite differences are made of."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

import hydrascope as hs

#: Of different lengths, in an order that isn't theirs.
PROMPTS = [[5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15, 16], [17, 18, 19]]


@dataclass(frozen=True)
class Toward:
    """Write clean value + step · (patch − clean value)."""

    whole: hs.ablations.Ablation
    step: float

    @property
    def patches(self) -> int:
        return self.whole.patches

    def draw(self, clean: hs.ablations.CleanActivations, prompts: Sequence[int]) -> hs.ablations.Patches:
        whole = self.whole.draw(clean, prompts)

        def values(component: hs.Component) -> Tensor:
            own = clean.own_activations(component, prompts)
            return own + self.step * (whole.values(component) - own)

        return hs.ablations.Patches(whole.sources, values)


def total(model: hs.models.LanguageModel, ablation: hs.ablations.Ablation, prompts=PROMPTS, **options) -> np.ndarray:
    """[readout, prompt, ablated] the mean total effect, by plain forward passes."""
    return hs.sweep(model, prompts, ablation, engine="reference", **options)["total"].mean("patch").values


def slope(model: hs.models.LanguageModel, ablation: hs.ablations.Ablation, step: float, **options) -> np.ndarray:
    """[readout, prompt, ablated] what the total effect is to first order, by central differences."""
    there, back = (total(model, Toward(ablation, way * step), **options) for way in (1, -1))
    return (there - back) / (2 * step)
