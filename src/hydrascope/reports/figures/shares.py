"""Draw shares with their bounds, one row for each ablation."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from hydrascope.reports.figures import style
from hydrascope.reports.summary.interval import Interval, number

#: Shares are shown from here to here; others are written at the edge.
LIMITS = (-0.5, 1.5)


def frame_shares(axes: Axes, rows: int, limits: tuple[float, float]) -> None:
    """Set the axes of shares, one row of the panel for each ablation."""
    axes.set_xlim(*limits)
    axes.set_ylim(-0.7, max(rows, 1) - 0.3)
    axes.axvline(0, color=style.GREY, linewidth=0.6, zorder=0)
    axes.axvline(1, color=style.GREY, linewidth=0.5, linestyle=":", zorder=0)
    axes.set_xlabel("Share of what is removed")


def draw_shares(axes: Axes, values: Sequence[Interval], up: float, label: str, colour: str, marker: str) -> None:
    """Draw one value of every row with its bounds, or its number at the edge."""
    axes.plot([], [], marker, color=colour, markersize=3, label=label)
    lowest, highest = axes.get_xlim()
    for row, value in enumerate(values):
        if not np.isfinite(value.estimate):
            continue
        y = row + up
        if lowest <= value.estimate <= highest:
            axes.plot(value.estimate, y, marker, color=colour, markersize=3, zorder=3)
            axes.hlines(y, max(value.low, lowest), min(value.high, highest), color=colour, linewidth=0.8)
        else:
            left = value.estimate < lowest
            text = f"◀ {number(value.estimate, 1)}" if left else f"{number(value.estimate, 1)} ▶"
            side = "left" if left else "right"
            axes.text(lowest if left else highest, y, text, ha=side, va="center", fontsize=5.5, color=colour)
