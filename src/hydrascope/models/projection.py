"""Projections, through which heads and neurons write to the residual stream.

The value v of a head is its columns in the input of attention's output projection W; the value of a neuron is its
column in the input of the MLP's down projection. The unit writes y = G W v / σ. G and σ are the gain and the scale, in
the same pass, of the norm after the sublayer if there is one (Gemma 2, OLMo 2), else 1. So the outputs of all units and
of the projection's bias sum to the output of the sublayer in every pass.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from hydrascope.models.offload import fetch


@dataclass(frozen=True)
class Projection:
    """The projection of a sublayer, with the values of all units side by side as its input.

    Attributes:
        module: the projection.
        norm: the root-mean-square norm between the projection and the residual stream, None if there is none.
        units: the number of heads or neurons.
        width: the number of columns of each unit.
        offset: the number that the norm adds to its stored weight to get the gain.
        eps: the number that the norm adds to the square of its scale.
    """

    module: nn.Module
    norm: nn.Module | None
    units: int
    width: int
    offset: float
    eps: float

    @classmethod
    def of(
        cls, module: nn.Module, norm: nn.Module | None, units: int | None, offset: float, eps: float
    ) -> "Projection":
        """Make the projection of `units` units; None for one unit per column."""
        columns = weight_of(module).shape[1]
        count = columns if units is None else units
        return cls(module, norm, count, columns // count, offset, eps)

    def columns(self, unit: int) -> slice:
        """Return the columns of a unit's value in the projection's input."""
        return slice(unit * self.width, (unit + 1) * self.width)

    def weight(self, like: Tensor) -> Float[Tensor, "stream columns"]:
        """Return W, `[stream, columns]`, in the dtype and on the device of `like`."""
        return _out_in(self.module, fetch(self.module)).to(like)

    def apply(self, values: Float[Tensor, "*rows columns"]) -> Float[Tensor, "*rows stream"]:
        """Return the projection's output, `[*rows, stream]`, from all units' values."""
        # `forward` bypasses the module's hooks. In a sweep it may take the sweep's rows alone (`differences`).
        forward: Any = self.module.forward
        output: Tensor = getattr(forward, "of_any_rows", forward)(values).to(values.device)
        return output

    def projected(self, values: Float[Tensor, "*rows width"], unit: int) -> Float[Tensor, "*rows stream"]:
        """Return the share of a unit in the projection's output: W v, without the bias."""
        return values @ self.weight(values)[:, self.columns(unit)].T

    def written(self, values: Float[Tensor, "*rows columns"], unit: int) -> Float[Tensor, "*rows stream"]:
        """Return the share of a unit in the sublayer's output, from all units' values."""
        projected = self.projected(values[..., self.columns(unit)], unit)
        return projected if self.norm is None else self.scaled(projected, self.apply(values))

    def scaled(self, part: Float[Tensor, "*rows stream"], whole: Float[Tensor, "*rows stream"]) -> Tensor:
        """Apply the norm to a part of the projection's output, at the scale for the whole."""
        return part if self.norm is None else part * self.gain(part) / self.scale(whole)[..., None]

    def gain(self, like: Tensor) -> Float[Tensor, "stream"]:
        """Return the gain G of the norm, `[stream]`, in the dtype and on the device of `like`."""
        assert self.norm is not None
        return gain_of(self.norm, self.offset, like)

    def apply_norm(self, projected: Float[Tensor, "*rows stream"]) -> Float[Tensor, "*rows stream"]:
        """Return the sublayer's output from the projection's output."""
        if self.norm is None:
            return projected
        norm: Any = self.norm
        output: Tensor = norm.forward(projected).to(projected.device)
        return output

    def scale(self, projected: Float[Tensor, "*rows stream"]) -> Float[Tensor, "*rows"]:
        """Return the scale σ of the norm, `[*rows]`, from the projection's output."""
        square: Tensor = torch.linalg.vector_norm(projected, dim=-1).square() / projected.shape[-1]
        return (square + self.eps).sqrt()

    def read_vector(self, direction: Float[Tensor, "*rows stream"]) -> Float[Tensor, "*rows columns"]:
        """Return Wᵀ G a for a direction a, which reads values directly: ⟨y, a⟩ = ⟨v, Wᵀ G a⟩ / σ."""
        if self.norm is not None:
            direction = direction * self.gain(direction)
        return direction @ self.weight(direction)


def gain_of(norm: nn.Module, offset: float, like: Float[Tensor, "*rows stream"]) -> Float[Tensor, "stream"]:
    """Return the gain of a norm, its weight plus `offset`; ones if it has no weight."""
    weight = fetch(norm)
    return like.new_ones(like.shape[-1]) if weight is None else weight.to(like) + offset


def weight_of(module: nn.Module) -> Float[Tensor, "stream columns"]:
    """Return the weight of a linear module, `[out, in]`; an offloaded weight has no numbers."""
    return _out_in(module, module.weight)


def _out_in(module: nn.Module, weight: Any) -> Float[Tensor, "stream columns"]:
    oriented: Tensor = weight.T if isinstance(module, Conv1D) else weight
    return oriented
