"""Hold claims against intervals, and correct for many claims."""

from collections.abc import Mapping
from math import inf
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit
from scipy.stats import false_discovery_control

from studies.words import Bounds

#: The false discovery rate of the secondary claims.
RATE = 0.1
#: The level over all primary claims.
LEVEL = 0.05
#: The primary claims, measured or not: ten that were declared together, and that on natural text.
DECLARED = 11


class Primary(NamedTuple):
    """The primary claim of a study.

    Attributes:
        outcome: `holds`, `refuted` or `can't tell`, from the study's own intervals.
        p: the p of the prediction, near 1 where it is refuted.
    """

    outcome: str
    p: float


def judged(settings: Mapping[str, Any], results: Mapping[str, Any]) -> Primary:
    """Return the primary claim of a study that stores its verdict."""
    return Primary(results["verdict"]["outcome"], results["verdict"]["p"])


def spread(bounds: Bounds, confidence: float = 0.95) -> float:
    """Return the standard deviation of a normal law with these bounds; NaN without bounds.

    >>> round(spread([0.0, -1.96, 1.96]), 3)
    1.0
    """
    _, low, high = bounds
    return float("nan") if low is None or high is None else (high - low) / (2 * float(ndtri((1 + confidence) / 2)))


def half_width(bounds: Bounds) -> float:
    """Return half the width of an interval; NaN without bounds.

    >>> half_width([0.5, 0.25, 1.0])
    0.375
    """
    _, low, high = bounds
    return float("nan") if low is None or high is None else (high - low) / 2


def p_below(bounds: Bounds, limit: float, freedom: float = inf) -> float:
    """Return the one-sided p of the claim that a number lies below a limit; 1 without bounds.

    >>> round(p_below([0.0, -1.96, 1.96], 1.645), 3)
    0.05

    Args:
        bounds: estimate, low and high, at 95%.
        limit: the limit.
        freedom: degrees of freedom: the number of clusters less one, where few were resampled.
    """
    estimate, width = bounds[0], spread(bounds)
    return 1.0 if estimate is None or not width > 0 else float(stdtr(freedom, (estimate - limit) / width))


def p_above(bounds: Bounds, limit: float, freedom: float = inf) -> float:
    """Return the one-sided p of the claim that a number lies above a limit, as `p_below`."""
    return p_below(turned(bounds), -limit, freedom)


def turned(bounds: Bounds) -> Bounds:
    """Return the bounds of a number with the other sign.

    >>> turned([0.2, 0.1, 0.4])
    [-0.2, -0.4, -0.1]
    """
    return [None if each is None else -each for each in (bounds[0], bounds[2], bounds[1])]


def p_above_by_t(bounds: Bounds, limit: float, freedom: int) -> float:
    """Return the one-sided p of the claim that a number lies above a limit, from an interval by Student's t.

    >>> round(p_above_by_t([0.5, 0.5 - 2.262, 0.5 + 2.262], 0.5 - 1.833, 9), 3)
    0.05

    Args:
        bounds: estimate, low and high, at 95% by t with the same degrees of freedom.
        limit: the limit.
        freedom: degrees of freedom.
    """
    estimate, low, _ = bounds
    if estimate is None or low is None or freedom < 1 or not estimate > low:
        return 1.0
    error = (estimate - low) / stdtrit(freedom, 0.975)
    return float(stdtr(freedom, (limit - estimate) / error))


def p_between(bounds: Bounds, low: float, high: float) -> float:
    """Return the p of the claim that a number lies between two limits: the larger of two one-sided tests."""
    return max(p_above(bounds, low), p_below(bounds, high))


def side(bounds: Bounds, low: float, high: float) -> str:
    """Return whether an interval lies `within` a range, wholly `outside`, or neither, `unsure`.

    >>> side([0.7, 0.6, 0.8], 0.5, 0.9), side([0.4, 0.3, 0.45], 0.5, 0.9), side([0.5, 0.4, 0.6], 0.5, 0.9)
    ('within', 'outside', 'unsure')
    """
    _, below, above = bounds
    if below is None or above is None:
        return "unsure"
    if low <= below and above <= high:
        return "within"
    return "outside" if below > high or above < low else "unsure"


def adjusted(p: Mapping[str, float]) -> dict[str, Any]:
    """Return for each claim its p, the adjusted one (Benjamini–Hochberg) and whether it holds."""
    controlled = false_discovery_control(np.array(list(p.values())))
    return {
        name: {"p": float(f"{own:.2g}"), "adjusted": float(f"{each:.2g}"), "holds": bool(each <= RATE)}
        for (name, own), each in zip(p.items(), controlled, strict=True)
    }


def holm(p: Mapping[str, float], claims: int = DECLARED) -> dict[str, float]:
    """Return each p corrected by Holm's method.

    Claims that aren't measured yet count as those with the largest p.

    >>> holm({"one": 0.01, "other": 0.004}, claims=4)
    {'one': 0.03, 'other': 0.016}

    Args:
        p: the p of each measured claim.
        claims: the number of claims, measured or not; at least those that are measured.
    """
    names = sorted(p, key=lambda name: p[name])
    steps = [p[name] * (max(claims, len(p)) - place) for place, name in enumerate(names)]
    corrected = dict(zip(names, np.minimum(1, np.maximum.accumulate(steps)).tolist(), strict=True))
    return {name: corrected[name] for name in p}
