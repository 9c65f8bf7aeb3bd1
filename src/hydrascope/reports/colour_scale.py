"""The colours of matrices: blue makes up for an ablation, orange goes with its damage.

The scale is asinh(value / linear), so that small values are seen beside large ones and nothing is clipped. Blue falls
far in lightness and orange little, and strong orange is struck through: grey keeps the sign.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hydrascope.measures import MIN_SHARE, Bootstrap, EffectsOnly, mean_interval

#: Colours from 0 to the largest value against the change, and with it, on light paper.
AGAINST = ("#f3f7fb", "#b9d3ec", "#6da3d6", "#2a6cb0", "#0b3566")
WITH = ("#fdf6f1", "#fbdfcc", "#f6bf9c", "#ee9d6c", "#e57f45")

#: Colours from 0 to the largest value of a map: what costs the answer, and what it gains by, which stays pale.
COST = ("#fdf6f1", "#fad3bf", "#f09a76", "#cf4f2b", "#7a1c08")
GAIN = ("#f3f7fb", "#d5e5f4", "#b0cfea", "#8ab8e0", "#5c9bd1")

#: The logits up to which the scale of a map is nearly linear, so that small costs look alike in all maps.
MAP_LINEAR = 0.1

#: The share of the largest value up to which the scale is nearly linear.
_LINEAR_SHARE = 0.006


@dataclass(frozen=True)
class ColourScale:
    """The scale of a matrix's colours.

    Attributes:
        most: the largest |value|, at which the colours end.
        linear: the |value| up to which the scale is nearly linear.
    """

    most: float
    linear: float

    @property
    def ticks(self) -> tuple[float, ...]:
        """The positive values to label: 1 and 3 times powers of ten, and the largest.

        >>> scale_of(np.array([[5.0]])).ticks
        (0.1, 0.3, 1.0, 5.0)
        """
        decades = range(int(np.floor(np.log10(self.linear))), int(np.ceil(np.log10(self.most))) + 1)
        steps = [step * 10.0**decade for decade in decades for step in (1, 3)]
        return (*(round(step, 12) for step in steps if 3 * self.linear <= step <= 0.4 * self.most), self.most)

    @property
    def struck(self) -> float:
        """The |value| from which a value that goes with the change is struck through."""
        return 3 * self.linear

    def for_page(self) -> dict[str, float | list[float]]:
        """Return the scale as the scripts of pages read it."""
        return {"most": self.most, "linear": self.linear, "struck": self.struck, "ticks": list(self.ticks)}


def scale_of(*matrices: Float[np.ndarray, "row column"]) -> ColourScale:
    """Return the scale that shows all values of some matrices; it ends at 1 if all values are 0."""
    sizes = np.concatenate([abs(matrix[np.isfinite(matrix)]) for matrix in matrices])
    most = _rounded_up(float(sizes.max(initial=0)) or 1.0)
    return ColourScale(most, _nearest_step(_LINEAR_SHARE * most))


def map_scale(cost: Float[np.ndarray, "token component"], unit: str | None) -> ColourScale:
    """Return the scale of a position map: of costs in logits it is nearly linear up to 0.1."""
    scale = scale_of(cost)
    return ColourScale(max(scale.most, 1.0), MAP_LINEAR) if unit == "logits" else scale


def removal_signs(effects: EffectsOnly, bootstrap: Bootstrap) -> Float[np.ndarray, "ablated"]:
    """Return the sign of what each ablation removes; 0 if that isn't surely 1% of the readout.

    A response times this sign is above 0 where it goes against the change that the ablation makes directly.

    Args:
        effects: on one readout.
        bootstrap: the resampling that gives the bounds.
    """
    removed = mean_interval(-effects["direct"], bootstrap).transpose("bound", "ablated")
    least = MIN_SHARE * float(abs(effects["logit"]).mean())
    estimate, low, high = removed.values
    sides = (estimate, estimate) if np.isnan(low).all() else (low, high)
    return np.where(sides[0] > least, 1.0, np.where(sides[1] < -least, -1.0, 0.0))


def _rounded_up(value: float) -> float:
    """Round a number up to two digits, so that it can be written at the end of a scale."""
    step = 10.0 ** (np.floor(np.log10(value)) - 1)
    return float(np.ceil(value / step - 1e-9) * step)


def _nearest_step(value: float) -> float:
    """Return the nearest of 1 and 3 times powers of ten, on a logarithmic scale."""
    decade = 10.0 ** np.floor(np.log10(value))
    return float(min((1, 3, 10), key=lambda step: abs(np.log(value / decade / step))) * decade)
