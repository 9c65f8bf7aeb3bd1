"""Draw matrices on one colour scale: red above 0, blue below, grey for no value."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.image import AxesImage

from hydrascope.measures.labels import kind_of
from hydrascope.reports.figures import style

#: Blue below 0, red above; distinguishable with any colour vision.
COLOURS = "RdBu_r"
GREY = "#D9D9D9"


def draw_matrix(axes: Axes, values: Float[np.ndarray, "row column"], most: float) -> AxesImage:
    """Draw a matrix, a square per number, the first row at the bottom; NaN is grey."""
    axes.set_facecolor(GREY)
    for side in axes.spines.values():
        side.set_visible(False)
    return axes.imshow(values, cmap=COLOURS, vmin=-most, vmax=most, aspect="auto", interpolation="none", origin="lower")


def name_rows(axes: Axes, labels: Sequence[str], most: int) -> None:
    """Label at most `most` rows; `labels` are ordered by kind."""
    ticks = _apart(labels, most)
    axes.set_yticks(ticks, [labels[tick] for tick in ticks])


def name_columns(axes: Axes, labels: Sequence[str], most: int) -> None:
    """Label at most `most` columns; `labels` are ordered by kind."""
    ticks = _apart(labels, most)
    axes.set_xticks(ticks, [labels[tick] for tick in ticks], rotation=90)


def divide(axes: Axes, *, rows: Sequence[str] = (), columns: Sequence[str] = ()) -> None:
    """Draw lines between the kinds of components."""
    for labels, line in ((rows, axes.axhline), (columns, axes.axvline)):
        kinds = list(map(kind_of, labels))
        for index in range(1, len(kinds)):
            if kinds[index] != kinds[index - 1]:
                line(index - 0.5, color=style.BLACK, linewidth=0.6)


def _apart(labels: Sequence[str], most: int) -> list[int]:
    """Return the indices of labels that don't overlap: the first of each kind, then others."""
    kinds, apart = list(map(kind_of, labels)), max(1, -(-len(labels) // most))
    firsts = [kinds.index(kind) for kind in dict.fromkeys(kinds)]
    others = [index for index, kind in enumerate(kinds) if (index - kinds.index(kind)) % apart == 0]
    chosen: list[int] = []
    for index in (*firsts, *others):
        if all(abs(index - other) >= apart for other in chosen):
            chosen.append(index)
    return sorted(chosen)
