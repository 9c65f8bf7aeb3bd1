"""Optimal ablation: one constant for each component, fitted on other prompts.

Source: Li & Janson 2024, arXiv 2409.09951.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float

from hydrascope.ablations.ablation import Patches, require_whole
from hydrascope.ablations.fit import LOSSES, WRITTEN, Fit, Loss, fit_component, run_halves
from hydrascope.components.component import Component
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.utils.errors import HydrascopeError

#: The fewest prompts: four of a half move the value, and a fifth chooses the step.
FEWEST = 10


@dataclass(frozen=True)
class Optimal:
    """Write a constant vector, fitted on other prompts to change the output least.

    The prompts are halved by the seed. For each component a vector is fitted on one half and written in the prompts of
    the other, at all ablated positions. So no prompt is measured with a vector that it helped to choose.

        >>> results = hs.sweep(model, prompts, hs.Optimal(), ablate="attn")                    # doctest: +SKIP

    Attributes:
        loss: `kl`, the mean KL divergence of the ablated from the clean next-token distribution; or `squared`, the mean
            squared change of the target's logit.
        steps: the largest number of steps of L-BFGS.
        seed: the seed of the halves.
    """

    loss: Loss = "kl"
    steps: int = 30
    seed: int = 0

    patches: ClassVar[int] = 1
    patch_source: ClassVar[str] = "fitted constant"
    uses_other_prompts: ClassVar[bool] = True
    notice: ClassVar[str] = "optimal: a constant is fitted for each component first, which may take minutes"

    def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
        """Return a patch of the other half's vector for each prompt.

        Raises:
            HydrascopeError: there are too few prompts, the loss is unknown, or no vector can be fitted.
        """
        self.check(clean)
        second = self.second_half(len(clean.tokens))[list(prompts)]
        slots = clean.padded_offsets(prompts).shape[1]

        def values(component: Component) -> Float[torch.Tensor, "prompt 1 slot columns"]:
            # A prompt of the first half has the vector that was fitted on the second.
            vectors = self.fit(clean, component).vectors[torch.from_numpy(1 - second.astype(int))]
            return vectors[:, None, None].expand(-1, 1, slots, -1)

        return Patches(np.full((len(prompts), 1), -1), values)

    def fit(self, clean: CleanActivations, component: Component) -> Fit:
        """Fit a component's vector on either half, once for all calls with the same activations.

        Raises:
            HydrascopeError: the component has no vector of its own, or no gradient goes through the model.
        """
        second = self.second_half(len(clean.tokens))
        halves = clean.remember(self, lambda: run_halves(clean, second))
        return clean.remember((self, component), lambda: fit_component(clean, halves, component, self.loss, self.steps))

    def record(self, clean: CleanActivations, components: Sequence[Component]) -> xr.Dataset:
        """Return the losses of the fitted vectors, of zero and of means.

        A mean is that of the half that fits.

        Args:
            clean: the clean activations.
            components: the ablated components.

        Returns:
            in nats or squared logits: `optimal_loss` [fitted, prompt, written], each prompt's loss by vectors of the
            other half; `optimal_loss_inside` [fitted, half, written], the mean loss over the half that fits.
        """
        fits = [self.fit(clean, component) for component in components]
        return xr.Dataset(
            {
                "optimal_loss": (("fitted", "prompt", "written"), np.stack([fit.outside for fit in fits])),
                "optimal_loss_inside": (("fitted", "half", "written"), np.stack([fit.inside for fit in fits])),
            },
            {
                "fitted": np.array(list(map(str, components)), object),
                "written": np.array(WRITTEN, object),
                "half": [0, 1],
            },
        )

    def second_half(self, count: int) -> Bool[np.ndarray, "prompt"]:
        """Mark the prompts of the second half.

        >>> hs.Optimal().second_half(10).sum()
        np.int64(5)
        """
        order = np.random.default_rng(self.seed).permutation(count)
        return np.asarray(order >= (count + 1) // 2)

    def check(self, clean: CleanActivations) -> None:
        """Refuse settings or prompts from which nothing can be fitted.

        Raises:
            HydrascopeError: there are too few prompts, or the loss, the steps or the seed are invalid.
        """
        count = len(clean.tokens)
        require_whole(self.steps, 1, "steps", "ask for at least one")
        require_whole(self.seed, 0, "seed", "give a number from 0 on")
        if self.loss not in LOSSES:
            raise HydrascopeError(f"there is no loss {self.loss!r}: give {' or '.join(LOSSES)}")
        if count < FEWEST:
            raise HydrascopeError(
                f"optimal ablation fits on one half of the prompts and measures on the other: give at least {FEWEST} "
                f"prompts, not {count}"
            )
