"""Axes that show what is informative, and mark what lies beyond them.

A few prompts or blocks may lie ten times as far out as all others. An axis that holds them flattens the rest, and one
that cuts them hides them. So the axis is clipped, and a triangle at its edge with a number stands for what is beyond.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.text import Annotation

from hydrascope.reports.figures import style
from hydrascope.reports.summary.interval import number

#: The share of a group's values below and above the range that counts.
_TAIL = 0.005
#: The share of groups whose range may reach beyond the axis, at either end.
_GROUPS = 0.1
#: An axis is clipped only if that makes the range smaller by this factor.
_WORTH = 1.5
#: The room at either end of an axis, as a share of it.
_ROOM = 0.05
#: The size of the numbers at the edges.
_SMALL = 5.5
#: The width of a number at the edge, as a share of the axis.
_LABEL = 0.1
#: Slopes are shown from here to here.
_SLOPES = (-1.0, 2.0)
#: The arrow in a text for each marker.
_ARROW = {"^": "▲", "v": "▼", "<": "◀", ">": "▶"}
#: The ground of a number, so that it is read on lines.
_GROUND: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.6}

Limits = tuple[float, float]


def informative(values: Float[np.ndarray, "prompt group"], shown: Sequence[float] = (0.0,)) -> Limits:
    """Return the limits of an axis that show at least 99% of the prompts of nine groups in ten.

    All values are shown where that makes the axis at most half as long again, and those of a single prompt.

    >>> informative(np.linspace(0, 1, 11)[:, None], ())
    (-0.05, 1.05)

    Args:
        values: the values, NaN where there are none.
        shown: further values that must lie within the limits.
    """
    values, shown = np.asarray(values, np.float64), [each for each in shown if np.isfinite(each)]
    known = values[:, np.isfinite(values).any(0)]
    if not known.size:
        low, high = (min(shown), max(shown)) if shown else (0.0, 1.0)
    else:
        lows, highs = np.nanquantile(known, [_TAIL, 1 - _TAIL], axis=0)
        low = min(float(np.quantile(lows, _GROUPS, method="lower")), *shown, np.inf)
        high = max(float(np.quantile(highs, 1 - _GROUPS, method="higher")), *shown, -np.inf)
        least, most = min(float(np.nanmin(known)), low), max(float(np.nanmax(known)), high)
        if len(values) == 1 or most - least <= _WORTH * (high - low):
            low, high = least, most
    room = _ROOM * (high - low) or 0.5
    return low - room, high + room


def clip_points(axes: Axes, x: np.ndarray, y: np.ndarray, x_limits: Limits, y_limits: Limits) -> None:
    """Set the limits of a cloud; mark and count the points beyond, and write the furthest."""
    axes.set_xlim(x_limits)
    axes.set_ylim(y_limits)
    known = np.isfinite(x) & np.isfinite(y)
    x, y = x[known], y[known]
    at = np.clip(x, *x_limits), np.clip(y, *y_limits)
    places = {
        "^": (0.02, 0.985, "left", "top"),
        "<": (0.02, 0.915, "left", "top"),
        ">": (0.98, 0.985, "right", "top"),
        "v": (0.02, 0.015, "left", "bottom"),
    }
    for values, limits, marks in ((y, y_limits, "v^"), (x, x_limits, "<>")):
        for beyond, marker, furthest in zip(_beyond(values, limits), marks, (np.min, np.max), strict=True):
            if not beyond.any():
                continue
            axes.plot(
                *(each[beyond] for each in at),
                marker,
                color=style.DIM,
                markersize=2.2,
                markeredgewidth=0,
                alpha=0.7,
                clip_on=False,
                zorder=5,
            )
            across, up, side, height = places[marker]
            axes.text(
                across,
                up,
                f"{_ARROW[marker]} {beyond.sum():,} to {_number(float(furthest(values[beyond])))}",
                transform=axes.transAxes,
                ha=side,
                va=height,
                fontsize=_SMALL,
                color=style.DIM,
                zorder=6,
                bbox=_GROUND,
            )


def mark_beyond(axes: Axes, x: Sequence[int] | np.ndarray, lines: np.ndarray, limits: Limits, colour: str) -> None:
    """Mark where `lines` [line, x] leave the vertical limits, and write how far.

    Of marks whose numbers would touch, only the furthest has one.
    """
    low, high = limits
    x = np.asarray(x)
    for marker, edge, furthest in (
        ("^", high, np.fmax.reduce(lines, axis=0)),
        ("v", low, np.fmin.reduce(lines, axis=0)),
    ):
        above = marker == "^"
        beyond = furthest > high if above else furthest < low
        if not beyond.any():
            continue
        axes.plot(x[beyond], np.full(beyond.sum(), edge), marker, color=colour, markersize=3, clip_on=False, zorder=5)
        left, right = axes.get_xlim()
        apart = _LABEL * (right - left)
        for index in _apart(apart, x, furthest if above else -furthest, beyond):
            last = x[index] > right - apart
            # A number of another colour at the same place is above or below this one.
            row = sum(
                isinstance(each, Annotation) and each.xy[1] == edge and abs(each.xy[0] - x[index]) < apart
                for each in axes.texts
            )
            axes.annotate(
                _number(float(furthest[index])),
                (x[index], edge),
                (-3.5 if last else 3.5, (-1.2 if above else 1.2) * (1 + row * _SMALL)),
                textcoords="offset points",
                ha="right" if last else "left",
                va="top" if above else "bottom",
                fontsize=_SMALL,
                color=colour,
                annotation_clip=False,
                zorder=6,
                bbox=_GROUND,
            )


def slope_limits(*slopes: np.ndarray) -> Limits:
    """Return limits that show 0, 1 and all slopes, from −1 to 2 at most."""
    every = np.concatenate([*(each.ravel() for each in slopes), [0.0, 1.0]])
    every = every[np.isfinite(every)].clip(*_SLOPES)
    room = 0.12 * float(np.ptp(every))
    return float(every.min() - room), float(every.max() + room)


def draw_slopes(axes: Axes, x: Sequence[int], bounds: np.ndarray, limits: Limits, colour: str) -> None:
    """Draw slopes over blocks as a line with a band.

    Slopes are unreliable where the direct effect hardly varies. A slope beyond the limits is a triangle at the edge
    with its value, and the line has a gap there.

    Args:
        axes: the panel; its horizontal axis must be set.
        x: the blocks.
        bounds: the slopes and their intervals, [estimate, low, high; x].
        limits: the limits of the vertical axis (`slope_limits`).
        colour: the colour of all.
    """
    axes.set_ylim(limits)
    estimate, low, high = bounds
    inside = np.where((estimate < limits[0]) | (estimate > limits[1]), np.nan, estimate)
    alone = np.isfinite(inside) & np.isnan(np.r_[np.nan, inside[:-1]]) & np.isnan(np.r_[inside[1:], np.nan])
    axes.vlines(np.asarray(x)[alone], low[alone], high[alone], color=colour, linewidth=0.8, alpha=0.6)
    axes.fill_between(x, low, high, where=np.isfinite(inside), color=colour, alpha=0.18, linewidth=0, zorder=1)
    axes.plot(x, inside, color=colour, marker="o", markersize=2)
    mark_beyond(axes, x, estimate[None], limits, colour)


def _beyond(values: np.ndarray, limits: Limits) -> tuple[Bool[np.ndarray, "point"], Bool[np.ndarray, "point"]]:
    return values < limits[0], values > limits[1]


def _apart(apart: float, x: np.ndarray, size: np.ndarray, beyond: np.ndarray) -> Iterator[int]:
    """Yield the marks with a number, the furthest first, so that no two numbers touch."""
    chosen: list[int] = []
    for index in sorted(np.flatnonzero(beyond), key=lambda index: -size[index]):
        if all(abs(x[index] - x[other]) >= apart for other in chosen):
            chosen.append(int(index))
            yield int(index)


def _number(value: float) -> str:
    """Return a number at an edge: whole from 10 on, else with one decimal."""
    return number(value, 0 if abs(value) >= 10 else 1)
