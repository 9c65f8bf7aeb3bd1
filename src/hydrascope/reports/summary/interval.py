"""A number with its confidence interval, and how it is written."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from hydrascope.measures import BOUNDS

#: What is smaller is none, in float32.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence bounds; NaN where there is none."""

    estimate: float
    low: float
    high: float

    @classmethod
    def of(cls, bounds: xr.DataArray) -> "Interval":
        """From an array [bound]."""
        return cls(*(float(bounds.sel(bound=bound)) for bound in BOUNDS))

    @classmethod
    def at(cls, bounds: xr.DataArray, ablated: str) -> "Interval":
        """From an array [bound, ablated]; unknown where there is no such part."""
        known = ablated in bounds["ablated"].values
        return cls.of(bounds.sel(ablated=ablated)) if known else UNKNOWN

    @property
    def if_bounded(self) -> "Interval":
        """Itself; unknown where it is a ratio without bounds, to what may be 0: nothing is to be read from it."""
        return self if np.isfinite(self.low) else UNKNOWN


#: Neither an estimate nor bounds.
UNKNOWN = Interval(np.nan, np.nan, np.nan)


def format_interval(value: Interval, digits: int) -> str:
    """`0.71 [0.68, 0.74]`; without bounds where there are none."""
    estimate = number(value.estimate, digits)
    if np.isnan(value.low) or np.isnan(value.high):
        return estimate
    return f"{estimate} [{number(value.low, digits)}, {number(value.high, digits)}]"


def format_significant(value: Interval) -> str:
    """With two digits, or as many as show that it surely isn't 0 where its bounds say so, by more than rounding."""
    nearest = max(value.low, -value.high)
    return format_interval(value, max(2, int(np.ceil(-np.log10(nearest)))) if nearest >= ROUNDING else 2)


def digits_for(values: Iterable[float]) -> int:
    """How many digits show numbers beside each other: two, or as many as give the largest two that aren't 0."""
    largest = max((abs(value) for value in values if np.isfinite(value)), default=0.0)
    return 2 if largest >= 0.1 or largest < ROUNDING else 1 + int(np.ceil(-np.log10(largest)))


def percent(share: float) -> str:
    """`95%`, `97.5%`: a level of confidence, as many digits as it needs."""
    return f"{100 * share:.3g}%"


def number(value: float, digits: int) -> str:
    """With a typographic minus; a dash where there is none."""
    if np.isnan(value):
        return "–"
    # Rounding may leave a minus before nothing.
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")
