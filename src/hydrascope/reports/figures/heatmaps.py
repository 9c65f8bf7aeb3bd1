"""Matrices of means over prompts, on one scale: red above 0, blue below, grey where there is nothing to measure."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from hydrascope.measures.labels import kind_of
from hydrascope.reports.figures import style

#: Blue below 0, red above: read without colour vision, too.
COLOURS = "RdBu_r"
GREY = "#D9D9D9"


def draw_matrix(axes: Axes, values: Float[np.ndarray, "row column"], most: float) -> AxesImage:
    """A square a number, the first row at the bottom; NaN is grey."""
    axes.set_facecolor(GREY)
    for side in axes.spines.values():
        side.set_visible(False)
    return axes.imshow(values, cmap=COLOURS, vmin=-most, vmax=most, aspect="auto", interpolation="none", origin="lower")


def name_rows(axes: Axes, labels: Sequence[str], most: int) -> None:
    """Name as many rows as there is room for, `most`; `labels` in order of kind."""
    ticks = _apart(labels, most)
    axes.set_yticks(ticks, [labels[tick] for tick in ticks])


def name_columns(axes: Axes, labels: Sequence[str], most: int) -> None:
    """Name as many columns as there is room for, `most`; `labels` in order of kind."""
    ticks = _apart(labels, most)
    axes.set_xticks(ticks, [labels[tick] for tick in ticks], rotation=90)


def divide(axes: Axes, *, rows: Sequence[str] = (), columns: Sequence[str] = ()) -> None:
    """A line between the kinds of parts."""
    for labels, line in ((rows, axes.axhline), (columns, axes.axvline)):
        found = list(map(kind_of, labels))
        for place in range(1, len(found)):
            if found[place] != found[place - 1]:
                line(place - 0.5, color=style.BLACK, linewidth=0.6)


def _apart(labels: Sequence[str], most: int) -> list[int]:
    """Which labels are written so that none runs into another: the first of each kind, then others of it."""
    found, apart = list(map(kind_of, labels)), max(1, -(-len(labels) // most))
    firsts = [found.index(kind) for kind in dict.fromkeys(found)]
    others = [place for place, kind in enumerate(found) if (place - found.index(kind)) % apart == 0]
    chosen: list[int] = []
    for place in (*firsts, *others):
        if all(abs(place - other) >= apart for other in chosen):
            chosen.append(place)
    return sorted(chosen)
