"""Draw damping and what content does against the length of the text before a sentence."""

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hydrascope.reports.figures import style
from studies.context.cells import Cell
from studies.words import name

_COLOURS = (style.BLUE, style.ORANGE, style.GREEN)
#: How the contexts are drawn: the line, the marker, the shift and the words.
_CONTEXTS = {"other": ("-", "o", -0.04, "another text"), "true": ("--", "s", 0.04, "its true context")}
_PANELS = {
    "damping": ("Damping g", "Share of a push that is taken back"),
    "size": ("Size in logits", "What a sublayer's content does to the readout"),
}
#: The length from which changes are told.
_FROM = 8
#: The limits within which damping was predicted to stay.
_LIMIT = 0.03


def draw(results: Mapping[str, Any]) -> Figure:
    """Return the figure: damping on the left, what content does on the right.

    Args:
        results: the study's results.
    """
    figure = Figure(figsize=(style.PAGE, 3.4))
    figure.suptitle("Does damping change with the text before the sentence?", fontsize=10, fontweight="bold")
    columns = figure.subplots(1, len(_PANELS))
    for axes, (quantity, (label, title)) in zip(columns, _PANELS.items(), strict=True):
        for colour, (model, of) in zip(_COLOURS, results["models"].items(), strict=False):
            _draw(axes, of["cells"], quantity, colour, name(model))
        axes.set_ylabel(label)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("Tokens before the sentence")
        axes.set_ylim(0)
    columns[0].set_ylim(0, 1)
    figure.legend(*columns[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=7.5)
    return figure


def _draw(axes: Axes, of: Mapping[str, Any], quantity: str, colour: str, model: str) -> None:
    cells = {Cell.parse(label): each[quantity][0] for label, each in of["each"].items()}
    lengths = sorted({cell.length for cell in cells})
    for context, (line, marker, shift, words) in _CONTEXTS.items():
        # The newline alone is the shortest context of another text.
        chosen = sorted(
            (cell for cell in cells if cell.context == context or (context == "other" and cell.length == 1)),
            key=lambda cell: cell.length,
        )
        places = [lengths.index(cell.length) + shift for cell in chosen]
        axes.plot(
            places,
            [cells[cell] for cell in chosen],
            line,
            marker=marker,
            color=colour,
            markersize=3.5,
            label=f"{model}, {words}",
        )
        start = cells.get(Cell(context, _FROM))
        if quantity == "damping" and context == "other" and start is not None:
            axes.axhspan(start - _LIMIT, start + _LIMIT, color=colour, alpha=0.15, linewidth=0)
        for cell, place in zip(chosen, places, strict=True):
            change = of["contrasts"].get(f"{cell.context}.{cell.length} − {context}.{_FROM}")
            if change and start is not None:
                _, low, high = change[quantity]
                axes.vlines(place, start + low, start + high, color=colour, linewidth=1, alpha=0.6)
    axes.set_xticks(range(len(lengths)), [str(length) for length in lengths])
