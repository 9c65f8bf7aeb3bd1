"""Bars beside a matrix: what each ablation removes, and what is lost in the end."""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hydrascope.reports.bar_axis import bar_limits
from hydrascope.reports.figures import style
from hydrascope.reports.summary.interval import number

#: The colour of what is lost.
LOST = "#d9682f"
#: The room beyond the axis for the number of an arrow, as a share of the axis.
_ROOM = 0.3
_SMALL = 5.5


def draw_outcomes(axes: Axes, removed: Float[np.ndarray, "ablated"], lost: Float[np.ndarray, "ablated"]) -> None:
    """Draw two bars a row on one linear axis: removed in outline above, lost solid below it.

    Bars beyond the axis end in a triangle with the number. What is NaN has no bar.

    Args:
        axes: the axes, whose vertical axis is that of the matrix.
        removed: the mean of −direct, in the readout's unit.
        lost: the mean of −total, in the readout's unit.
    """
    amounts = np.stack([removed, lost])
    low, high = bar_limits(amounts)
    rows, shown = np.arange(len(removed)), amounts.clip(low, high)
    axes.barh(rows + 0.2, shown[0], height=0.38, label="removed", facecolor="none", edgecolor=style.DIM, linewidth=0.4)
    axes.barh(rows - 0.2, shown[1], height=0.38, label="lost", color=LOST, linewidth=0)
    axes.axvline(0, color=style.BLACK, linewidth=0.5)
    span = high - low
    left, right = ((amounts < low).any(), (amounts > high).any())
    axes.set_xlim(low - span * (_ROOM if left else 0.03), high + span * (_ROOM if right else 0.03))
    for at, values in ((0.2, removed), (-0.2, lost)):
        for end, marker, side, beyond in ((low, "<", "right", values < low), (high, ">", "left", values > high)):
            axes.plot(np.full(beyond.sum(), end), rows[beyond] + at, marker, color=style.BLACK, markersize=1.8)
            for row in rows[beyond]:
                place, text = end + (0.05 if marker == ">" else -0.05) * span, number(values[row], 1)
                axes.text(place, row + at, text, ha=side, va="center", fontsize=_SMALL, color=style.DIM)
    ticks = MaxNLocator(3, steps=[1, 2, 5, 10]).tick_values(low, high)
    axes.set_xticks([tick for tick in np.asarray(ticks).tolist() if low <= tick <= high])
    axes.spines["left"].set_visible(False)
    axes.tick_params(left=False, labelleft=False)
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=6, handlelength=1.0, borderpad=0, labelspacing=0.2
    )
