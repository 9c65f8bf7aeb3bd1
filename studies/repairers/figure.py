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
    figure = Figure(figsize=(style.PAGE, 4.8))
    figure.suptitle("Do two contexts agree on the heads that react to an ablation?\n", fontsize=10, fontweight="bold")
    columns = figure.subplots(1, len(models), squeeze=False, sharey=True)[0]
    for axes, (model, of) in zip(columns, models.items(), strict=True):
        image = _draw(axes, of)
        axes.set_title(
            f"{name(model)}\nabove the diagonal: missing prediction, {number(of['damping'][0], 2)}\n"
            f"below: missing content, {number(of['content'][0], 2)}",
            fontsize=8,
        )
    bar = figure.colorbar(image, ax=list(columns), orientation="horizontal", shrink=0.5, aspect=35, extend="both")
    bar.set_ticks([-1, 0, 1], labels=["opposite", "unrelated", "the same heads"])
    bar.ax.tick_params(labelsize=7.5)
    return figure


def _draw(axes: Axes, of: Mapping[str, Any]) -> Any:
    contexts, matrix = of["contexts"], _both(of["matrix"])
    image = axes.imshow(matrix, cmap=_COLOURS, vmin=-1, vmax=1)
    corners = np.arange(len(contexts) + 1) - 0.5
    axes.stairs(corners[1:], corners, baseline=corners[:-1], color=style.BLACK, linewidth=0.6)
    axes.set_xticks(range(len(contexts)), contexts, rotation=90, fontsize=6.5)
    axes.set_yticks(range(len(contexts)), contexts, fontsize=6.5)
    axes.tick_params(length=0)
    return image


def _both(matrix: Mapping[str, Any]) -> np.ndarray:
    """Return the matrix with damping above the diagonal, content below, and the mean reliability of both on it."""
    damping, content = (np.array(matrix[kind], float) for kind in ("damping", "content"))
    found = np.triu(damping, 1) + np.tril(content, -1)
    np.fill_diagonal(found, (np.diag(damping).clip(0) + np.diag(content).clip(0)) / 2)
    return found
