"""Draw damping and what content does against the length of the text before a sentence."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hydrascope.reports.figures import style
from studies.context.cells import Cell
from studies.words import name

_COLOURS = (style.BLUE, style.ORANGE, style.GREEN)
#: How the contexts are drawn: the line, the marker and the shift.
_CONTEXTS = {"other": ("-", "o", -0.05, "another text"), "true": ("--", "s", 0.05, "its true context")}
_PANELS = {
    "damping": ("Damping g: share of a push\nthat is taken back", "Damping"),
    "size": ("What a sublayer's content does\n(logits, root mean square)", "The content's effect"),
}


def draw(results: Mapping[str, Any]) -> Figure:
    """Return the figure: damping on the left, what content does on the right.

    Args:
        results: the study's results.
    """
    figure = Figure(figsize=(style.PAGE, 3.4))
    figure.suptitle("More text before the sentence: what becomes of repair?", fontsize=10, fontweight="bold")
    columns = figure.subplots(1, len(_PANELS))
    for axes, (quantity, (label, title)) in zip(columns, _PANELS.items(), strict=True):
        for colour, (model, of) in zip(_COLOURS, results["models"].items(), strict=False):
            _draw(axes, of["cells"]["each"], quantity, colour, name(model))
        axes.axhline(0, color=style.GREY, linewidth=0.5)
        axes.set_ylabel(label)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("Tokens before the sentence")
    columns[0].set_ylim(0, 1)
    figure.legend(
        *columns[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, columnspacing=1, fontsize=7.5
    )
    return figure


def _draw(axes: Axes, cells: Mapping[str, Any], quantity: str, colour: str, model: str) -> None:
    lengths = sorted({Cell.parse(label).length for label in cells})
    for context, (line, marker, shift, words) in _CONTEXTS.items():
        # The newline alone is the shortest context of either kind.
        chosen = {
            Cell.parse(label).length: of[quantity]
            for label, of in cells.items()
            if Cell.parse(label).context in (context, "newline")
        }
        x = np.array([lengths.index(length) for length in sorted(chosen)]) + shift
        estimate, low, high = np.array([chosen[length] for length in sorted(chosen)], float).T
        axes.vlines(x, low, high, color=colour, linewidth=0.8, alpha=0.5)
        axes.plot(x, estimate, line, marker=marker, color=colour, markersize=3.5, label=f"{model}, {words}")
    axes.set_xticks(range(len(lengths)), [str(length) for length in lengths])
