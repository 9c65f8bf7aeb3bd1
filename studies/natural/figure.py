"""Draw the slope of compensation over depth on natural text, as Figure 7d of the paper."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hydrascope.reports.figures import style
from hydrascope.reports.summary.interval import number
from studies.words import name

#: Slopes beyond these are drawn at the edge.
_LIMITS = (-0.5, 1.6)
_READ = {"logit": (style.BLUE, "logit", -0.15), "difference": (style.ORANGE, "difference to the runner-up", 0.15)}
_PAPER = 0.7
#: The range that was declared for the best sublayer.
_PREDICTED = (0.5, 0.9)


def draw(results: Mapping[str, Any]) -> Figure:
    """Return the figure: a panel for each model.

    Args:
        results: the study's results.
    """
    models = results["models"]
    figure = Figure(figsize=(style.PAGE, 3.4))
    figure.suptitle(
        "Natural text: how much does the network give back of what attention wrote?", fontsize=10, fontweight="bold"
    )
    columns = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    for axes, (model, of) in zip(columns, models.items(), strict=True):
        _draw(axes, of["passages"])
        best = of["passages"]["logit"]["best"]
        told = f"\nbest sublayer, {of['passages']['logit']['at']}: {number(best['slope'][0], 2)}" if best else ""
        axes.set_title(f"{name(model)}{told}", fontsize=9)
        axes.set_xlabel("Block of the ablated attention sublayer")
    columns[0].set_ylabel("Slope of CE on DE")
    figure.legend(
        *columns[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, columnspacing=1, fontsize=7.5
    )
    return figure


def _draw(axes: Axes, passages: Mapping[str, Any]) -> None:
    axes.axhspan(*_PREDICTED, color=style.GREY, alpha=0.2, linewidth=0, label="predicted for the stars")
    axes.axhline(0, color=style.GREY, linewidth=0.5)
    axes.axhline(1, color=style.GREY, linewidth=0.5, linestyle=":")
    axes.axhline(_PAPER, color=style.BLACK, linewidth=0.8, label="the paper, Chinchilla 7B")
    for readout, (colour, label, shift) in _READ.items():
        of = passages[readout]
        slopes = of["attention"]["slopes"]
        blocks = np.array([int(each.split(".")[1]) for each in slopes])
        numbers = np.array([[np.nan if each is None else each for each in bounds] for bounds in slopes.values()])
        estimate, low, high = np.clip(numbers.T, *_LIMITS)
        axes.vlines(blocks + shift, low, high, color=colour, linewidth=0.7, alpha=0.35)
        axes.plot(blocks + shift, estimate, "o", color=colour, markersize=3, alpha=0.6, label=label)
        if of["best"]:
            at = blocks == int(of["at"].split(".")[1])
            axes.plot(blocks[at] + shift, estimate[at], "*", color=colour, markersize=13)
    axes.set_ylim(_LIMITS[0] - 0.05, _LIMITS[1] + 0.05)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
