"""The opposite of an ablation: a component writes twice as much."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hydrascope.ablations.ablation import Patches
from hydrascope.engines.clean.activations import CleanActivations


@dataclass(frozen=True)
class Boost:
    """Write twice the clean activation.

    >>> run = hs.sweep(model, prompts, Boost(), ablate="attn.3")                           # doctest: +SKIP
    """

    patches: ClassVar[int] = 1
    patch_source: ClassVar[str] = "this prompt, twice"
    uses_other_prompts: ClassVar[bool] = False

    def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
        """Return a patch of twice the own activation for each prompt."""
        sources = np.full((len(prompts), 1), -1)
        return Patches(sources, lambda component: 2 * clean.own_activations(component, prompts))
