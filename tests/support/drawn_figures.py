"""Read panels, curves, points and texts back from a drawn figure."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text


def panel(figure: Figure, title: str) -> Axes:
    """Return the panel with this title at the left, or with one in the middle that begins so."""
    found = [
        axes for axes in figure.get_axes() if axes.get_title().startswith(title) or axes.get_title(loc="left") == title
    ]
    assert found, [axes.get_title() for axes in figure.get_axes()]
    return found[0]


def curve(axes: Axes, values: xr.DataArray | np.ndarray) -> bool:
    """Return whether `axes` has a line through these values."""
    wanted = np.asarray(values)
    return any(
        len(line.get_ydata()) == len(wanted) and np.allclose(line.get_ydata(), wanted, equal_nan=True)
        for line in axes.get_lines()
    )


def points(axes: Axes) -> np.ndarray:
    """Return all points of a panel, sorted."""
    offsets = [each.get_offsets() for each in axes.collections if isinstance(each, PathCollection)]
    found = np.concatenate([np.asarray(each) for each in offsets])
    return found[np.lexsort(found.T)]


def written(figure: Figure) -> str:
    """Return all text of a figure."""
    found = [text.get_text() for text in figure.findobj(Text)]
    legends = [text.get_text() for each in figure.findobj(Legend) for text in each.get_texts()]
    return "\n".join(found + legends)


def in_order(x: xr.DataArray, y: xr.DataArray) -> np.ndarray:
    """Return the points with these coordinates, sorted as `points` sorts."""
    pairs = np.stack([x.values.ravel(), y.values.ravel()], axis=1)
    return pairs[np.lexsort(pairs.T)]
