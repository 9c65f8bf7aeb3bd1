"""A control for ablations: the same change in size, in a random direction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar
from zlib import crc32

import torch
from jaxtyping import Float
from torch import Tensor

from hydrascope.ablations.ablation import Ablation, Patches
from hydrascope.components.component import Component
from hydrascope.engines.clean.activations import CleanActivations


@dataclass(frozen=True)
class SameSize:
    """Write the clean activation plus a random direction, as long as another ablation's change.

    It is the control for a claim about an ablation's direction: whatever follows from it as well follows from any push
    of that size.

        >>> control = hs.sweep(model, prompts, hs.ablations.SameSize(hs.Zero()), ablate="attn")

    Attributes:
        of: the ablation with the changes of that size.
        seed: the seed of the directions, which depend besides on the prompt's index, the patch and the component.
    """

    of: Ablation
    seed: int = 0

    patch_source: ClassVar[str] = "a random direction of the same size"

    @property
    def patches(self) -> int:
        """The number of patches of each prompt."""
        return self.of.patches

    @property
    def uses_other_prompts(self) -> bool:
        """Whether patches are made of other prompts' activations."""
        return bool(getattr(self.of, "uses_other_prompts", True))

    def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
        """Return patches with changes of the same size as the other ablation's."""
        other = self.of.draw(clean, prompts)

        def values(component: Component) -> Float[Tensor, "prompt patch slot columns"]:
            own = clean.own_activations(component, prompts)
            change = other.values(component).to(own) - own
            counts = [len(clean.positions[index].positions) for index in prompts]
            each = zip(prompts, counts, strict=True)
            directions = torch.stack([self._directions(component, index, count, change[0]) for index, count in each])
            unit = directions / torch.linalg.vector_norm(directions, dim=-1, keepdim=True)
            size: Tensor = torch.linalg.vector_norm(change, dim=-1, keepdim=True)
            written: Tensor = own + unit.to(own) * size
            return written

        return Patches(other.sources, values)

    def _directions(self, component: Component, index: int, count: int, like: Tensor) -> Tensor:
        """Return random directions for one prompt, `[patch, slot, columns]`, whatever the batch.

        The prompt has `count` positions; further slots repeat the last one.
        """
        seed = crc32(f"{self.seed} {index} {component}".encode())
        generator = torch.Generator().manual_seed(seed)
        drawn = [torch.randn(like.shape[0], like.shape[2], generator=generator) for _ in range(count)]
        return torch.stack([*drawn, *[drawn[-1]] * (like.shape[1] - count)], 1)
