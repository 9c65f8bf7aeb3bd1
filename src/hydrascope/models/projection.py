"""How heads and neurons write to the residual stream: columns of a projection's input, through it and what follows it.

A head's value is its columns of the input of attention's output projection W, a neuron's its column of the input of
the MLP's down projection. With v the value, y = G W v / σ: G and σ are the gain and the scale of the norm after
the layer where the architecture has one (Gemma 2, OLMo 2), at the scale that it has in that very run; 1 elsewhere. So
the units and the projection's bias add up to the layer in every run.
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
    """The projection of a layer whose input holds the values of its units side by side.

    Attributes:
        module: the projection.
        norm: the root-mean-square norm between it and the residual stream, None where there is none.
        units: how many heads or neurons.
        width: how many columns each has.
        offset: what the norm adds to its stored weight to get the gain.
        eps: what the norm adds to the square of its scale.
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
        """The projection `module` of `units` units, or of a unit a column."""
        columns = weight_of(module).shape[1]
        count = columns if units is None else units
        return cls(module, norm, count, columns // count, offset, eps)

    def columns(self, unit: int) -> slice:
        """Where the value of `unit` stands in the projection's input."""
        return slice(unit * self.width, (unit + 1) * self.width)

    def weight(self, like: Tensor) -> Float[Tensor, "stream columns"]:
        """W, in the dtype of `like` and where that is."""
        return _out_in(self.module, fetch(self.module)).to(like)

    def apply(self, values: Float[Tensor, "*rows columns"]) -> Float[Tensor, "*rows stream"]:
        """The projection's output, from all units' values."""
        # The module's own computation, past any hooks on it.
        return self.module.forward(values).to(values.device)

    def projected(self, values: Float[Tensor, "*rows width"], unit: int) -> Float[Tensor, "*rows stream"]:
        """What `unit` adds to the projection's output: W v, without the bias."""
        return values @ self.weight(values)[:, self.columns(unit)].T

    def written(self, values: Float[Tensor, "*rows columns"], unit: int) -> Float[Tensor, "*rows stream"]:
        """What `unit` adds to the layer's output, of all units' values."""
        projected = self.projected(values[..., self.columns(unit)], unit)
        return projected if self.norm is None else self.scaled(projected, self.apply(values))

    def scaled(self, part: Float[Tensor, "*rows stream"], whole: Float[Tensor, "*rows stream"]) -> Tensor:
        """What the layer writes of a part of the projection's output: at the scale that the norm has for the whole."""
        return part if self.norm is None else part * self.gain(part) / self.scale(whole)[..., None]

    def gain(self, like: Tensor) -> Float[Tensor, "stream"]:
        """G of the norm after the projection, in the dtype of `like` and where that is."""
        assert self.norm is not None
        weight = fetch(self.norm)
        assert weight is not None
        return weight.to(like) + self.offset

    def apply_norm(self, projected: Float[Tensor, "*rows stream"]) -> Float[Tensor, "*rows stream"]:
        """The layer's output, from the projection's."""
        return projected if self.norm is None else self.norm.forward(projected).to(projected.device)

    def scale(self, projected: Float[Tensor, "*rows stream"]) -> Float[Tensor, "*rows"]:
        """σ of the norm after the projection, from the projection's output."""
        square = torch.linalg.vector_norm(projected, dim=-1).square() / projected.shape[-1]
        return (square + self.eps).sqrt()

    def read_vector(self, direction: Float[Tensor, "*rows stream"]) -> Float[Tensor, "*rows columns"]:
        """Wᵀ G a: against it a value is read as it stands, ⟨y, a⟩ = ⟨v, Wᵀ G a⟩ / σ, with no product of its own."""
        if self.norm is not None:
            direction = direction * self.gain(direction)
        return direction @ self.weight(direction)


def weight_of(module: nn.Module) -> Float[Tensor, "stream columns"]:
    """The weight of a linear module, `[out, in]`, as it stands: without numbers where those are elsewhere."""
    return _out_in(module, module.weight)


def _out_in(module: nn.Module, weight: Any) -> Float[Tensor, "stream columns"]:
    return weight.T if isinstance(module, Conv1D) else weight
