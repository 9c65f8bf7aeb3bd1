"""Draw the reaction of each head against what it writes in the clean run."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hydrascope.reports.figures import style
from studies.words import name, share

#: The number of reactions with a label, of each model.
_LABELLED = 4


def draw(results: Mapping[str, Any]) -> Figure:
    """Return the figure: a panel for each model.

    Args:
        results: the study's results.
    """
    models = results["models"]
    figure = Figure(figsize=(style.PAGE, 3.1))
    columns = figure.subplots(1, len(models), squeeze=False)[0]
    for axes, (model, of) in zip(columns, models.items(), strict=True):
        _draw(axes, of)
        axes.set_title(f"{name(model)}: brakes carry {share(of['share']['zero'])}", fontsize=9)
    columns[0].set_ylabel("Reaction (logits)")
    return figure


def _draw(axes: Axes, of: Mapping[str, Any]) -> None:
    points = [(seed, head, x, y) for seed, head, x, y in of["points"] if seed in of["seeds"]]
    x, y = np.array([[each[2], each[3]] for each in points]).T
    axes.axhline(0, color=style.GREY, linewidth=0.5)
    axes.axvline(0, color=style.GREY, linewidth=0.5)
    slope = np.polyfit(x, y, 1)
    ends = np.array([x.min(), x.max()])
    axes.plot(ends, np.polyval(slope, ends), color=style.GREY, linewidth=1, linestyle="--", zorder=1)
    sides = np.where(x < 0, style.ORANGE, style.BLUE)
    axes.scatter(x, y, s=22, c=sides, linewidths=0, alpha=0.8, zorder=2)
    axes.margins(x=0.08, y=0.2)
    labelled: list[int] = []
    for place in np.argsort(-y):
        # A label takes half of the width, and one line.
        free = all(
            abs(y[place] - y[other]) > 0.07 * np.ptp(y) or abs(x[place] - x[other]) > 0.75 * np.ptp(x)
            for other in labelled
        )
        if not free or len(labelled) == _LABELLED:
            continue
        labelled.append(int(place))
        seed, head = points[place][:2]
        left = x[place] > x.min() + 0.7 * np.ptp(x)
        axes.annotate(
            f"{head.removeprefix('head.')} (without {seed.removeprefix('head.')})",
            (x[place], y[place]),
            xytext=(-4 if left else 4, 3),
            textcoords="offset points",
            fontsize=6.5,
            ha="right" if left else "left",
        )
    for text, at, side in (
        ("brakes let go", (0.03, 0.97), "left"),
        ("substitutes", (0.97, 0.97), "right"),
        ("brakes press harder", (0.03, 0.03), "left"),
        ("movers follow the seed down", (0.97, 0.03), "right"),
    ):
        axes.text(
            *at,
            text,
            transform=axes.transAxes,
            color=style.GREY,
            fontsize=7,
            ha=side,
            va="top" if at[1] > 0.5 else "bottom",
        )
    axes.set_xlabel("Writes for the answer in the clean run (logits)")
