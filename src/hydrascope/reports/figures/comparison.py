"""The figure of a comparison: the share restored over depth."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hydrascope.measures import ComponentKind
from hydrascope.reports.figures import style
from hydrascope.reports.figures.limits import mark_beyond
from hydrascope.reports.figures.panels import absent, printable, zero_line
from hydrascope.reports.summary.comparison import Comparison

#: Colours and markers, distinguishable with any colour vision and in greyscale.
_LOOKS = (
    (style.BLUE, "o"),
    (style.VERMILION, "s"),
    (style.GREEN, "^"),
    (style.PURPLE, "D"),
    (style.ORANGE, "P"),
    (style.SKY, "X"),
    (style.BLACK, "*"),
)
#: Shares below or above these are drawn as triangles at the edge.
_LOWEST, _HIGHEST = -1.0, 2.0
#: The upper end of the axes if no share is larger.
_TOP = 1.3
#: The names of the two reference lines.
_REFERENCES = {0: "none", 1: "all restored"}
_TITLES: dict[ComponentKind, str] = {
    "attn": "Attention sublayers ablated",
    "mlp": "MLPs ablated",
    "head": "Heads ablated",
    "neuron": "Neurons ablated",
    "feature": "Features ablated",
}


def figure_comparison(comparison: Comparison) -> Figure:
    """Draw the share restored over depth, with a panel for each kind of component.

    Each result has a colour. Depth runs from 0 (first block) to 1 (last block). Components that remove too little of
    the readout are left out. Triangles at the edges are shares below −1 or above 2, with the value. Hollow
    markers have no bounds, because the ablation may remove nothing.

        >>> comparison = hs.reports.compare({"a": results, "b": results}, hs.measures.Bootstrap(resamples=50))
        >>> figure = figure_comparison(comparison)

    Args:
        comparison: the result of `hydrascope.reports.compare`.
    """
    kinds = list(dict.fromkeys(kind for _, kind in comparison.over_depth))
    names = list(dict.fromkeys(name for name, _ in comparison.over_depth))
    with style.style():
        width = style.PAGE if len(kinds) > 1 else style.COLUMN
        figure = Figure(figsize=(width, 3.0 + 0.12 * len(names)), layout="constrained")
        row = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        for axes, kind in zip(row, kinds, strict=True):
            _panel(axes, comparison, kind, names)
        row[0].set_ylabel("Restored: 1 − lost/removed")
        row[0].set_ylim(_LOWEST - 0.04, _top(comparison))
        if any(each.size for each in comparison.over_depth.values()):
            figure.legend(handles=_legend(comparison, names), loc="outside lower center", ncols=3)
    return figure


def _legend(comparison: Comparison, names: list[str]) -> list[Line2D]:
    """Return legend entries for every result, and for triangles and hollow markers if drawn."""
    entries = [_entry(printable(name, 40), *_LOOKS[i % len(_LOOKS)]) for i, name in enumerate(names)]
    shares = comparison.over_depth.values()
    for label, marker, beyond in (("below −1", "v", _below), ("above 2", "^", _above)):
        if any(beyond(each).any() for each in shares):
            entries.append(_entry(label, style.GREY, marker))
    if any(_unbounded(each).any() for each in shares):
        entries.append(_entry("without bounds: may remove nothing", style.GREY, "o", "none"))
    return entries


def _entry(label: str, colour: str, marker: str, face: str | None = None) -> Line2D:
    return Line2D([], [], color=colour, marker=marker, markersize=4, markerfacecolor=face, linestyle="", label=label)


def _top(comparison: Comparison) -> float:
    """Return the upper end of the axes: above the largest share, or at the edge for triangles."""
    largest = max((float(each.max()) for each in comparison.over_depth.values() if each.size), default=0.0)
    return _TOP if largest <= _TOP else min(largest, _HIGHEST) + 0.04


def _below(shares: xr.DataArray) -> xr.DataArray:
    return shares.sel(bound="estimate") < _LOWEST


def _above(shares: xr.DataArray) -> xr.DataArray:
    return shares.sel(bound="estimate") > _HIGHEST


def _unbounded(shares: xr.DataArray) -> xr.DataArray:
    """Return a mask of the shares within the axes that have no bounds."""
    return shares.sel(bound=["low", "high"]).isnull().any("bound") & ~_below(shares) & ~_above(shares)


def _panel(axes: Axes, comparison: Comparison, kind: ComponentKind, names: list[str]) -> None:
    axes.set_title(_TITLES[kind])
    if not any(comparison.over_depth[name, kind].size for name in names if (name, kind) in comparison.over_depth):
        absent(axes, "none removes enough\nto be restored")
        return
    zero_line(axes)
    axes.axhline(1, color=style.GREY, linewidth=0.5, linestyle=":", zorder=0)
    for height, meaning in _REFERENCES.items():
        axes.annotate(
            meaning,
            (1, height),
            (0, 1.5),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            fontsize=5.5,
            color=style.DIM,
        )
    axes.set_xlim(-0.04, 1.04)
    for i, name in enumerate(names):
        colour, marker = _LOOKS[i % len(_LOOKS)]
        shares = comparison.over_depth.get((name, kind))
        if shares is None:
            continue
        # Results at the same depth are drawn side by side.
        x = shares["relative_depth"].values + 0.008 * (i - (len(names) - 1) / 2)
        y, low, high = (shares.sel(bound=bound).values for bound in ("estimate", "low", "high"))
        below, above, unbounded = (which(shares).values for which in (_below, _above, _unbounded))
        sure = ~(below | above | unbounded)
        around = np.array([y - low, high - y])[:, sure].clip(0)
        axes.errorbar(x[sure], y[sure], around, color=colour, marker=marker, markersize=4, linestyle="", elinewidth=0.8)
        axes.plot(x[unbounded], y[unbounded], marker, color=colour, markersize=4, markerfacecolor="none")
        mark_beyond(axes, x, np.where(below | above, y, np.nan)[None], (_LOWEST - 0.04, _HIGHEST + 0.04), colour)
    axes.set_xlabel("Relative depth of the ablated component")
