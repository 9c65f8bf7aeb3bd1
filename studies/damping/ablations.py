"""Ablations of this study alone: content of another prompt, and pushes along several directions."""

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
from hydrascope.engines.readouts import Readout, Tokens
from hydrascope.prompts.answers import answer_tokens, foil_tokens


@dataclass(frozen=True)
class WrongContent:
    """Remove the readout part, and write another prompt's content, as long as the component's own.

    Attributes:
        seed: the seed of the draws of the other prompts.
    """

    seed: int = 0

    patches: ClassVar[int] = 1
    patch_source: ClassVar[str] = "another prompt’s content"

    def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
        """Return the other prompts' content."""
        others = hs.Resample(1, self.seed).draw(clean, prompts)
        (direction,) = directions_of(clean, prompts, [hs.LogitDifference()])

        def values(component: Component) -> Float[Tensor, "prompt patch slot columns"]:
            own = content_of(clean.own_activations(component, prompts), direction)
            other = content_of(others.values(component), direction)
            size = torch.linalg.vector_norm(own, dim=-1, keepdim=True)
            return other * size / torch.linalg.vector_norm(other, dim=-1, keepdim=True)

        return Patches(others.sources, values)


@dataclass(frozen=True)
class BeyondEmbeddings:
    """Remove all but what a component writes along the readout and along the two tokens' plain embeddings.

    The readout's direction holds the final norm's gain. Where the prediction stands in the stream without it, the
    content of a split still holds a part of the prediction; this ablation leaves that part where it is.
    """

    patches: ClassVar[int] = 1
    patch_source: ClassVar[str] = ""

    def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
        """Return the activations' projections on the plane of both directions."""
        (direction,) = directions_of(clean, prompts, [hs.LogitDifference()])
        tokens, weight = _tokens(clean), clean.model.unembedding.weight.detach()
        pair = (tokens.answer, tokens.foil) if tokens.foil else (tokens.target, tokens.rival)
        answer, foil = (weight[[ids[index] for index in prompts]] for ids in pair)
        plain = answer - foil
        plane = torch.linalg.qr(torch.stack([direction, plain.to(direction)], -1)).Q[:, None, None]

        def values(component: Component) -> Float[Tensor, "prompt patch slot columns"]:
            own = clean.own_activations(component, prompts)
            along = (own[..., None, :].to(plane) @ plane)[..., 0, :, None]
            return (plane @ along)[..., 0].to(own)

        return Patches(np.full((len(prompts), 1), -1), values)


@dataclass(frozen=True)
class Pushes:
    """Push along several directions, each by as much as zero ablation pushes along the target's logit.

    The first patch is the target's own push, which is the readout part of a zero ablation.

    Attributes:
        tokens: the number of other tokens.
        directions: the number of random directions.
        seed: the seed of both.
    """

    tokens: int = 4
    directions: int = 3
    seed: int = 0

    patch_source: ClassVar[str] = "a push"

    @property
    def patches(self) -> int:
        """The number of pushes."""
        return 1 + self.tokens + self.directions

    def readouts(self, width: int) -> list[Readout]:
        """Return the readouts whose directions are pushed along, in the order of the patches."""
        vectors = np.random.default_rng(self.seed).standard_normal((self.directions, width))
        others: list[Readout] = [hs.Placebo(self.tokens, self.seed)] if self.tokens else []
        return [hs.Logit(), *others, *(hs.Direction(each, name=f"random.{n}") for n, each in enumerate(vectors))]

    def draw(self, clean: CleanActivations, prompts: Sequence[int]) -> Patches:
        """Return the pushed activations."""
        readouts = self.readouts(clean.model.width)
        directions = torch.stack(directions_of(clean, prompts, readouts), 1)[:, :, None]
        units = directions / torch.linalg.vector_norm(directions, dim=-1, keepdim=True)

        def values(component: Component) -> Float[Tensor, "prompt patch slot columns"]:
            own = clean.own_activations(component, prompts)
            along = (own * units[:, :1].to(own)).sum(-1, keepdim=True)
            return own - along * units.to(own)

        return Patches(np.full((len(prompts), self.patches), -1), values)


def content_of(values: Tensor, direction: Float[Tensor, "prompt width"]) -> Tensor:
    """Return what `values` [prompt, patch, slot, width] hold besides their projection on a direction."""
    along = direction.to(values)[:, None, None]
    return values - along * ((values * along).sum(-1, keepdim=True) / along.square().sum(-1, keepdim=True))


def _tokens(clean: CleanActivations) -> Tokens:
    """Return the tokens that a run of these prompts reads."""
    if all(prompt.foil is None for prompt in clean.prompts):
        return Tokens(clean.targets, rival=clean.rivals)
    answers, foils = (find(clean.model, clean.prompts, in_pairs=True) for find in (answer_tokens, foil_tokens))
    return Tokens(clean.targets, answers, foils, clean.rivals)


@torch.no_grad()
def directions_of(
    clean: CleanActivations, prompts: Sequence[int], readouts: Sequence[Readout]
) -> list[Float[Tensor, "prompt width"]]:
    """Return the directions that readouts read, for the tokens of the run's prompts.

    Args:
        clean: the clean activations.
        prompts: the indices of the prompts.
        readouts: the readouts.
    """
    tokens = _tokens(clean)
    return [linear.direction.cpu() for readout in readouts for linear in readout.linear(clean.model, tokens, prompts)]
