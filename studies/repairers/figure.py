"""Draw the agreement of every two contexts: damping above the diagonal, content below."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hydrascope.reports.figures import style
from hydrascope.reports.summary.interval import number
from studies.words import name

_COLOURS = "RdYlBu"


def draw(results: Mapping[str, Any]) -> Figure:
    """Return the figure: a panel for each model.

    Args:
        results: the study's results.
    """
    models = results["models"]
    figure = Figure(figsize=(style.PAGE, 4.1))
    figure.suptitle("Do two contexts agree on the heads that react to an ablation?", fontsize=10, fontweight="bold")
    columns = figure.subplots(1, len(models), squeeze=False)[0]
    for axes, (model, of) in zip(columns, models.items(), strict=True):
        image = _draw(axes, of)
        axes.set_title(
            f"{name(model)}\nabove: missing prediction {number(of['damping'][0], 2)}\n"
            f"below: missing content {number(of['content'][0], 2)}",
            fontsize=8.5,
        )
    bar = figure.colorbar(image, ax=list(columns), orientation="horizontal", shrink=0.5, aspect=35, extend="both")
    bar.set_label("Agreement: 1 the same heads, 0 unrelated ones (white: too noisy; grey diagonal: the context itself)")
    return figure


def _draw(axes: Axes, of: Mapping[str, Any]) -> Any:
    contexts, matrix = of["contexts"], _both(of["matrix"])
    image = axes.imshow(matrix, cmap=_COLOURS, vmin=-1, vmax=1)
    for place in range(len(contexts)):
        axes.fill_between([place - 0.5, place + 0.5], place - 0.5, place + 0.5, color=style.GREY, linewidth=0)
    axes.set_xticks(range(len(contexts)), contexts, rotation=90, fontsize=6)
    axes.set_yticks(range(len(contexts)), contexts, fontsize=6)
    axes.tick_params(length=0)
    return image


def _both(matrix: Mapping[str, Any]) -> np.ndarray:
    """Return the matrix with damping above the diagonal and content below."""
    damping, content = (np.array(matrix[kind], float) for kind in ("damping", "content"))
    found = np.triu(damping, 1) + np.tril(content, -1)
    np.fill_diagonal(found, np.nan)
    return found
