"""Remove all that a sublayer writes, or the part along the readout alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

import hydrascope as hs
from hydrascope.ablations.ablation import Patches
from hydrascope.components.component import Component
from hydrascope.engines.clean.activations import CleanActivations
from studies.damping.ablations import content_of, directions_of


@dataclass(frozen=True)
class WholeAndPart:
    """Write nothing, then all but the projection on the readout's direction.

    The first patch is a zero ablation, the second the readout part of its change. So a result has both with the same
    components frozen, which a split has not.

    >>> run = hs.sweep(model, prompts, WholeAndPart(), ablate="attn.3|head.5.1")           # doctest: +SKIP
    """

    patches: ClassVar[int] = 2
    patch_source: ClassVar[str] = "nothing, or this prompt without the readout part"
    uses_other_prompts: ClassVar[bool] = False

    def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
        """Return both patches for each prompt."""
        (direction,) = directions_of(clean, prompts, [hs.LogitDifference()])

        def values(component: Component) -> Float[Tensor, "prompt patch slot columns"]:
            own = clean.own_activations(component, prompts)
            return torch.cat([torch.zeros_like(own), content_of(own, direction)], 1)

        return Patches(np.full((len(prompts), self.patches), -1), values)
