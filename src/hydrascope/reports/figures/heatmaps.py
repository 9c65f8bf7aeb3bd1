"""Draw matrices on one colour scale: blue makes up for an ablation, orange goes with it."""

from collections.abc import Iterable, Sequence
from textwrap import fill

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import AsinhNorm, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from hydrascope.measures.labels import group_of
from hydrascope.reports.colour_scale import AGAINST, WITH, ColourScale
from hydrascope.reports.figures import style
from hydrascope.reports.summary.tick_text import tick_text

COLOURS = LinearSegmentedColormap.from_list("against", [*reversed(WITH), *AGAINST])
#: The most letters of the scale's label in an inch.
_LETTERS = 11
#: The colour of the dashes through values that go with the change.
_STRIKE = "#8f3d12"
#: The size of the letters of a key inside a matrix.
_KEY = 5.5
#: The fewest rows of a matrix with a key inside.
_FEWEST_ROWS = 16


def draw_matrix(axes: Axes, values: Float[np.ndarray, "row column"], scale: ColourScale) -> AxesImage:
    """Draw a matrix, a square per number, the first row at the bottom; NaN is paper.

    Args:
        axes: the axes to draw on.
        values: above 0 where they make up for the ablation.
        scale: the scale of the colours; values from `scale.struck` below 0 are struck through.
    """
    for side in axes.spines.values():
        side.set_visible(False)
    rows, columns = np.nonzero(values <= -scale.struck)
    axes.hlines(rows, columns - 0.25, columns + 0.25, color=_STRIKE, linewidth=0.4)
    norm = AsinhNorm(scale.linear, vmin=-scale.most, vmax=scale.most)
    return axes.imshow(values, cmap=COLOURS, norm=norm, aspect="auto", interpolation="none", origin="lower")


def fade_rows(axes: Axes, rows: Iterable[int]) -> None:
    """Make rows faint: too little is removed there to tell what makes up for it."""
    for row in rows:
        axes.axhspan(row - 0.5, row + 0.5, color="white", alpha=0.6, linewidth=0)


def draw_scale(figure: Figure, image: AxesImage, axes: Sequence[Axes], scale: ColourScale, label: str) -> Colorbar:
    """Draw the scale of the colours beside `axes`; a long label has several lines."""
    most = int(_LETTERS * figure.get_figheight())
    bar = figure.colorbar(image, ax=axes, label=fill(label, most), aspect=30, pad=0.02)
    ticks = [*(-tick for tick in reversed(scale.ticks)), 0.0, *scale.ticks]
    bar.set_ticks(ticks, labels=[tick_text(tick) for tick in ticks])
    bar.minorticks_off()
    return bar


def has_corner(values: Float[np.ndarray, "row column"]) -> bool:
    """Whether the empty corner at the top left of a matrix has room for `draw_key`."""
    rows, columns = values.shape
    return rows >= _FEWEST_ROWS and bool(np.isnan(values[-int(0.2 * rows) :, : int(0.66 * columns)]).all())


def draw_key(
    figure: Figure, axes: Axes, image: AxesImage, scale: ColourScale, ends: tuple[str, str], label: str
) -> Colorbar:
    """Draw the scale of the colours in the empty corner of a matrix.

    Args:
        figure: the figure.
        axes: the matrix's.
        image: the matrix.
        scale: the scale of its colours.
        ends: the meaning of orange and of blue.
        label: the name and the unit of the values.
    """
    inset = axes.inset_axes((0.05, 0.935, 0.56, 0.02))
    bar = figure.colorbar(image, cax=inset, orientation="horizontal")
    # Few, so that they don't touch.
    most = [tick for tick in scale.ticks if tick == scale.most or not f"{tick:e}".startswith("3")]
    ticks = [*(-tick for tick in reversed(most)), 0.0, *most]
    bar.set_ticks(ticks, labels=[tick_text(tick) for tick in ticks])
    bar.minorticks_off()
    bar.ax.tick_params(labelsize=_KEY, length=2, pad=1.5)
    bar.set_label(label, fontsize=_KEY, labelpad=1)
    for text, place, side in zip(ends, (0.0, 1.0), ("left", "right"), strict=True):
        inset.text(place, 1.3, text, transform=inset.transAxes, ha=side, va="bottom", fontsize=_KEY)
    return bar


def name_rows(axes: Axes, labels: Sequence[str], most: int) -> None:
    """Label at most `most` rows; `labels` are ordered by group."""
    ticks = _apart(labels, most)
    axes.set_yticks(ticks, [labels[tick] for tick in ticks])


def name_columns(axes: Axes, labels: Sequence[str], most: int) -> None:
    """Label at most `most` columns; `labels` are ordered by group."""
    ticks = _apart(labels, most)
    axes.set_xticks(ticks, [labels[tick] for tick in ticks], rotation=90)


def divide(axes: Axes, *, rows: Sequence[str] = (), columns: Sequence[str] = ()) -> None:
    """Draw lines between the groups of components."""
    for labels, line in ((rows, axes.axhline), (columns, axes.axvline)):
        groups = list(map(group_of, labels))
        for index in range(1, len(groups)):
            if groups[index] != groups[index - 1]:
                line(index - 0.5, color=style.BLACK, linewidth=0.6)


def _apart(labels: Sequence[str], most: int) -> list[int]:
    """Return the indices of labels that don't overlap: the first of each group, then others."""
    groups, apart = list(map(group_of, labels)), max(1, -(-len(labels) // most))
    firsts = [groups.index(group) for group in dict.fromkeys(groups)]
    others = [index for index, group in enumerate(groups) if (index - groups.index(group)) % apart == 0]
    chosen: list[int] = []
    for index in (*firsts, *others):
        if all(abs(index - other) >= apart for other in chosen):
            chosen.append(index)
    return sorted(chosen)
