"""Numbers with confidence intervals, and their text."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from hydrascope.measures import BOUNDS

#: Float32 rounds: smaller numbers count as 0.
ROUNDING = 1e-5


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence bounds; NaN where there is none.

    Attributes:
        estimate: the estimate.
        low, high: the bounds; NaN where the interval is unbounded or unknown.
    """

    estimate: float
    low: float
    high: float

    @classmethod
    def of(cls, bounds: xr.DataArray) -> "Interval":
        """Return the interval of an array [bound]."""
        return cls(*(float(bounds.sel(bound=bound)) for bound in BOUNDS))

    @classmethod
    def at(cls, bounds: xr.DataArray, ablated: str) -> "Interval":
        """Return the interval of one ablation in an array [bound, ablated], or `UNKNOWN`."""
        return cls.of(bounds.sel(ablated=ablated)) if ablated in bounds["ablated"].values else UNKNOWN

    @property
    def if_bounded(self) -> "Interval":
        """The interval itself if it has bounds, else `UNKNOWN`: a ratio to an amount that may be 0."""
        return self if np.isfinite(self.low) else UNKNOWN


#: An interval with neither an estimate nor bounds.
UNKNOWN = Interval(np.nan, np.nan, np.nan)


def format_interval(value: Interval, digits: int) -> str:
    """Format an interval, as `0.71 [0.68, 0.74]`; bounds are left out if there are none."""
    estimate = number(value.estimate, digits)
    if np.isnan(value.low) or np.isnan(value.high):
        return estimate
    return f"{estimate} [{number(value.low, digits)}, {number(value.high, digits)}]"


def format_share(value: Interval) -> str:
    """Format a share with its bounds in percent, as `83% [77, 89]`; a dash if it is unknown."""
    if np.isnan(value.estimate):
        return number(value.estimate, 0)
    estimate = f"{number(100 * value.estimate, 0)}%"
    if np.isnan(value.low) or np.isnan(value.high):
        return estimate
    return f"{estimate} [{number(100 * value.low, 0)}, {number(100 * value.high, 0)}]"


def format_significant(value: Interval) -> str:
    """Format an interval with two digits, or enough to show that it excludes 0."""
    nearest = max(value.low, -value.high)
    return format_interval(value, max(2, int(np.ceil(-np.log10(nearest)))) if nearest >= ROUNDING else 2)


def digits_for(values: Iterable[float]) -> int:
    """Return the digits for a column: two, or enough for two significant digits of the largest."""
    largest = max((abs(value) for value in values if np.isfinite(value)), default=0.0)
    return 2 if largest >= 0.1 or largest < ROUNDING else 1 + int(np.ceil(-np.log10(largest)))


def percent(share: float) -> str:
    """Format a share as a percentage, as `95%` or `97.5%`."""
    return f"{100 * share:.3g}%"


def number(value: float, digits: int) -> str:
    """Format a number with a typographic minus; NaN is a dash."""
    if np.isnan(value):
        return "–"
    # Adding 0.0 turns −0 into 0.
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")
