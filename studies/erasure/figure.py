"""Draw what late MLPs take from tokens, by frequency, when one is pushed."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hydrascope.reports.figures import style
from hydrascope.reports.summary.interval import number
from studies.words import name


def draw(results: Mapping[str, Any]) -> Figure:
    """Return the figure: a panel for each model.

    Args:
        results: the study's results.
    """
    models = results["models"]
    figure = Figure(figsize=(style.PAGE, 3.4))
    figure.suptitle("A likely token is pushed up by 1 logit: what do late MLPs do?", fontsize=10, fontweight="bold")
    columns = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    for axes, (model, of) in zip(columns, models.items(), strict=True):
        _draw(axes, of["example"])
        axes.set_title(name(model), fontsize=9)
        axes.set_xlabel("rare ← log frequency of the token → frequent")
    low, high = columns[0].get_ylim()
    columns[0].set_ylim(low - 0.05 * (high - low), high)
    columns[0].set_ylabel("Change of its logit")
    figure.legend(*columns[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7.5)
    return figure


def _draw(axes: Axes, of: Mapping[str, Any]) -> None:
    axes.axhline(0, color=style.GREY, linewidth=0.6)
    x, at = of["log_frequency"], of["target_log_frequency"]
    axes.plot(x, [-each for each in of["push"]], "--", color=style.GREY, linewidth=1, label="the push, turned round")
    # The labels stand apart, since the stars may not.
    for key, colour, label, marked, shift in (
        ("whole", style.BLUE, "late MLPs: other tokens", "pushed token", -7),
        ("rest", style.ORANGE, "without common mode and frequency", "its own part", 7),
    ):
        values = np.array([np.nan if each is None else each for each in of[key]])
        axes.plot(x, values, "-o", color=colour, markersize=3, linewidth=1, label=label)
        axes.plot([at], [of["target"][key]], "*", color=colour, markersize=13)
        axes.annotate(
            f"{marked}: {number(of['target'][key], 2)}",
            (at, of["target"][key]),
            (-9, shift),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=7.5,
            color=colour,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5},
        )
