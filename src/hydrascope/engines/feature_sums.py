"""Sums over prompts of what every feature of a dictionary contributes to readouts."""

from dataclasses import dataclass
from typing import Self

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class FeatureSums:
    """Sums over prompts of the contributions of a dictionary's features, in the readouts' units.

    The response of a feature is the change of its contribution by an override, at the clean σ, averaged over patches.

    Attributes:
        clean: `[readout, feature]` the sum of contributions in the clean pass.
        response: `[readout, ablated, feature]` the sum of responses.
        absolute: `[readout, ablated, feature]` the sum of absolute responses.
        square: `[readout, ablated, feature]` the sum of squared responses.
    """

    clean: Float[Tensor, "readout feature"]
    response: Float[Tensor, "readout ablated feature"]
    absolute: Float[Tensor, "readout ablated feature"]
    square: Float[Tensor, "readout ablated feature"]

    def __add__(self, other: Self) -> "FeatureSums":
        return FeatureSums(
            self.clean + other.clean,
            self.response + other.response,
            self.absolute + other.absolute,
            self.square + other.square,
        )
