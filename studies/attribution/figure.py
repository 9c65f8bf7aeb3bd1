"""Draw the squared error of each estimate, by the terms that it gets wrong."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hydrascope.reports.figures import style
from studies.words import name

#: The parts of a bar, from below.
PARTS = {
    "given back": (style.GREEN, "later sublayers give back more"),
    "taken": (style.ORANGE, "later sublayers take away more"),
    "norm": (style.GREY, "final norm"),
    "own": (style.PURPLE, "own write"),
}
#: The estimators, as ticks call them.
ESTIMATORS = {
    "lens": "logit\nlens",
    "atp": "AtP",
    "ig": "IG,\n1 step",
    "atp_star": "AtP*",
    "gim": "GIM,\nscaled",
}


def draw(results: Mapping[str, Any]) -> Figure:
    """Return the figure: a panel for each model.

    Args:
        results: the study's results.
    """
    models = results["models"]
    figure = Figure(figsize=(style.PAGE, 3.5))
    figure.suptitle("Attribution's error, by what later sublayers do on balance", fontsize=10, fontweight="bold")
    columns = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    for axes, (model, of) in zip(columns, models.items(), strict=True):
        _draw(axes, dict(bars(of)))
        axes.set_title(name(model), fontsize=9)
    columns[0].set_ylabel("Σ error² / Σ total²")
    figure.legend(
        *columns[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, columnspacing=1.2, fontsize=7.5
    )
    return figure


def bars(of: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each estimator with its shares and its size, all sets together."""
    for estimator in ESTIMATORS:
        found = of["difference"] if estimator in of["difference"] else of["estimators"]
        yield estimator, found[estimator]["pooled"]


def _draw(axes: Axes, found: Mapping[str, Mapping[str, Any]]) -> None:
    axes.axhline(0, color=style.BLACK, linewidth=0.6)
    axes.axhline(1, color=style.GREY, linewidth=0.6, linestyle=":")
    places = np.arange(len(found))
    size = np.array([of["size"][0] for of in found.values()])
    above, below = np.zeros(len(found)), np.zeros(len(found))
    for part, (colour, label) in PARTS.items():
        height = size * np.array([of[part][0] for of in found.values()])
        start = np.where(height > 0, above, below)
        axes.bar(places, height, 0.7, start, color=colour, label=label)
        above, below = above + np.maximum(height, 0), below + np.minimum(height, 0)
    axes.set_xticks(places, [ESTIMATORS[each] for each in found])
    axes.tick_params(axis="x", length=0)
