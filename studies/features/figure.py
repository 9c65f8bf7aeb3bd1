"""Draw what comes back of a push by the number of blocks in between."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hydrascope.reports.figures import style
from hydrascope.reports.summary.interval import number
from studies.words import name

#: The lines: colour, label and marker of each kind of direction.
_LINES = {
    "neurons": (style.BLUE, "features (gate rows of neurons)", "o"),
    "matched": (style.ORANGE, "random, of the same variance", "s"),
    "components": (style.GREY, "first principal components", "^"),
}


def draw(results: Mapping[str, Any]) -> Figure:
    """Return the figure: a panel for each model.

    Args:
        results: the study's results.
    """
    models = results["models"]
    figure = Figure(figsize=(style.PAGE, 3.4))
    figure.suptitle(
        "A sublayer's write along a direction is removed: how much comes back?", fontsize=10, fontweight="bold"
    )
    columns = figure.subplots(1, len(models), sharey=True, squeeze=False)[0]
    for axes, (model, of) in zip(columns, models.items(), strict=True):
        _draw(axes, of)
        more = number(of["difference"][-1][0], 2)
        axes.set_title(f"{name(model)}\nfeatures − random after {of['between'][-1]} blocks: {more}", fontsize=9)
        axes.set_xlabel("Blocks in between")
    columns[0].set_ylabel("Share that comes back (g)")
    figure.legend(*columns[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7.5)
    return figure


def _draw(axes: Axes, of: Mapping[str, Any]) -> None:
    axes.axhline(0, color=style.GREY, linewidth=0.6)
    for kind, (colour, label, marker) in _LINES.items():
        estimate, low, high = np.array(of["curves"][kind], float).T
        axes.fill_between(of["between"], low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(of["between"], estimate, f"-{marker}", color=colour, markersize=4, linewidth=1.3, label=label)
    axes.set_xticks(of["between"])
