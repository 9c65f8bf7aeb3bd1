"""The tools people use today, each running the protocol the way its users write it.

A peer opens a *session* on a prompt; a session runs the prompt with nothing or one component ablated, all its
patches in one batch, and hands back what the protocol reads at the final position. `sweep` turns runs into the
protocol's answer, alike for all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from benchmarks.shapes import Parts, Shape, parts
from benchmarks.task import Answer, Prompt, Work
from hydrascope.components.component import Component


@dataclass(frozen=True)
class Run:
    """What a forward pass shows at the final position.

    Attributes:
        values: what stands at each site that is read, `[batch, columns]`.
        residual: `[batch, width]` z, the final norm's input.
        logits: `[batch, vocabulary]`.
    """

    values: list[Float[Tensor, "batch columns"]]
    residual: Float[Tensor, "batch width"]
    logits: Float[Tensor, "batch vocabulary"]


@dataclass(frozen=True)
class Override:
    """What an ablated component writes: some columns of what stands at its site, at some positions, a patch a copy."""

    site: Component
    columns: slice
    positions: slice
    patches: Float[Tensor, "patch slot columns"]

    def __call__(self, hidden: Float[Tensor, "patch position columns"]) -> None:
        """Write into what stands at the site."""
        hidden[:, self.positions, self.columns] = self.patches


#: Runs a prompt with an override, as many copies as it has patches; None: one clean run.
Session = Callable[[Override | None], Run]
#: Opens a session on a prompt; keywords go to every call of the model: `logits_to_keep=1` unembeds the last
#: position alone.
Peer = Callable[..., Session]


@torch.inference_mode()
def sweep(peer: Peer, prompt: Prompt, work: Work, readout: "Readout", ablated: Sequence[int], **forward: Any) -> Answer:
    """The protocol on one prompt: components ablated one by one, by their numbers, each with every patch."""
    shape = readout.shape
    run = peer(prompt.tokens, **forward)
    clean = run(None)
    directions = readout.directions(clean.residual[0], prompt.target)
    row_unembed, row_logit = [], []
    components = work.ablated(shape)
    for number in ablated:
        component = components[number]
        override = Override(component.site, work.columns(component, shape), work.positions, prompt.patches[number])
        row = run(override)
        row_unembed.append(readout.read(row.values, directions))
        row_logit.append(row.logits[:, prompt.target] - row.logits.mean(1))
    return Answer(readout.read(clean.values, directions)[0], torch.stack(row_unembed), torch.stack(row_logit))


class Readout:
    """The direction r(σ) against which a component's output is its centred logit of a token (Eq. 7-10)."""

    def __init__(self, model: Any, shape: Shape, work: Work) -> None:
        self.shape = shape
        self._sites = work.sites(shape)
        self._parts: Parts = parts(model, shape)
        # What a head writes is its value through the output projection: its weight, `[width, columns]`.
        self._projections = [self._weight(projection) for projection in self._parts.projection]
        self._norm: Any = self._parts.norm
        self._unembedding: Tensor = self._parts.unembedding.weight  # [vocabulary, width]
        self._mean = self._unembedding.mean(0)

    @staticmethod
    def _weight(projection: Any) -> Tensor:
        return projection.weight if isinstance(projection, nn.Linear) else projection.weight.T

    def directions(self, residual: Float[Tensor, "width"], target: int) -> list[Float[Tensor, "columns"]]:
        """r(σ), with σ the final norm's scale at `residual`: for each site as its values are read."""
        gained = self._norm.weight * (self._unembedding[target] - self._mean)
        if isinstance(self._norm, nn.LayerNorm):
            sigma = (residual.var(unbiased=False) + self._norm.eps).sqrt()
            direction = (gained - gained.mean()) / sigma
        else:
            direction = gained / (residual.pow(2).mean() + self._norm.variance_epsilon).sqrt()
        return [direction @ self._projections[site.block] if site.kind == "head" else direction for site in self._sites]

    def read(
        self, values: Sequence[Float[Tensor, "batch columns"]], directions: Sequence[Float[Tensor, "columns"]]
    ) -> Float[Tensor, "batch component"]:
        """⟨y_c, r(σ)⟩ of everything that is read."""
        each = []
        for site, here, direction in zip(self._sites, values, directions, strict=True):
            if site.kind == "head":
                each.append((here * direction).unflatten(-1, (self.shape.heads, -1)).sum(-1))
            else:
                each.append((here @ direction)[:, None])
        return torch.cat(each, 1)
