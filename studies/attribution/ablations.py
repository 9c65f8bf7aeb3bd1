"""Parts of an ablation: what a component writes lies between its own activation and the patch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import hydrascope as hs
from hydrascope.ablations.ablation import Patches
from hydrascope.components.component import Component
from hydrascope.engines.clean.activations import CleanActivations

_WHOLE = {"zero": hs.Zero(), "counterfactual": hs.Counterfactual()}


@dataclass(frozen=True)
class Doses:
    """Write a mixture of the own activation and the patch: dose · own + (1 − dose) · patch.

    >>> run = hs.sweep(model, prompts, Doses("zero", (0, 0.5)), ablate="attn.3")           # doctest: +SKIP

    Attributes:
        whole: the name of the ablation at dose 0.
        doses: the share of the own activation in each patch.
    """

    whole: Literal["zero", "counterfactual"]
    doses: tuple[float, ...]

    patch_source: ClassVar[str] = "parts of an ablation"
    uses_other_prompts: ClassVar[bool] = False

    @property
    def patches(self) -> int:
        """The number of doses."""
        return len(self.doses)

    def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
        """Return a patch for each dose."""
        patches = _WHOLE[self.whole].draw(clean, prompts)

        def values(component: Component) -> Float[Tensor, "prompt patch slot columns"]:
            own, patch = clean.own_activations(component, prompts), patches.values(component)
            return torch.cat([patch + dose * (own - patch.to(own)) for dose in self.doses], 1)

        return Patches(np.full((len(prompts), self.patches), -1), values)
