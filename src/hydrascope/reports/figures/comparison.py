"""Results side by side: what is restored, over depth."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hydrascope.measures import ComponentKind
from hydrascope.reports.figures import style
from hydrascope.reports.figures.panels import absent, printable, zero_line
from hydrascope.reports.summary.comparison import Comparison

#: Distinguishable with any kind of colour vision, and in greyscale by their markers.
_LOOKS = (
    (style.BLUE, "o"),
    (style.VERMILION, "s"),
    (style.GREEN, "^"),
    (style.PURPLE, "D"),
    (style.ORANGE, "P"),
    (style.SKY, "X"),
    (style.BLACK, "*"),
)
#: What lies lower, where much more is lost than removed, or higher, is a triangle at the edge.
_LOWEST, _HIGHEST = -1.0, 2.0
#: Where the axes end if no share is larger.
_TOP = 1.3
_TITLES: dict[ComponentKind, str] = {
    "attn": "Attention layers ablated",
    "mlp": "MLP layers ablated",
    "head": "Heads ablated",
    "neuron": "Neurons ablated",
}


def figure_comparison(comparison: Comparison) -> Figure:
    """The share that is restored of what each ablated part removes, a panel a kind of part, a colour a result.

    Over depth, from the first layer at 0 to the last at 1, with confidence intervals. Parts that remove too little of
    the readout to be spoken of are left out; a triangle at the lower edge is a part without which more than twice what
    it removes is lost, at the upper one of which more than twice is restored; a hollow marker one that may remove
    nothing, so that its share has no bounds.

        figure_comparison(compare({"a": first, "b": second})).savefig("comparison.png")
    """
    found = list(dict.fromkeys(kind for _, kind in comparison.over_depth))
    names = list(dict.fromkeys(name for name, _ in comparison.over_depth))
    with style.style():
        width = style.PAGE if len(found) > 1 else style.COLUMN
        figure = Figure(figsize=(width, 3.0 + 0.12 * len(names)), layout="constrained")
        row = figure.subplots(1, len(found), sharey=True, squeeze=False)[0]
        for axes, kind in zip(row, found, strict=True):
            _panel(axes, comparison, kind, names)
        row[0].set_ylabel("Restored: 1 − lost/removed")
        row[0].set_ylim(_LOWEST - 0.04, _top(comparison))
        if any(each.size for each in comparison.over_depth.values()):
            figure.legend(handles=_legend(comparison, names), loc="outside lower center", ncols=3)
    return figure


def _legend(comparison: Comparison, names: list[str]) -> list[Line2D]:
    """Every result, whichever panels it is in; and what marks a part that isn't shown in full, where there is one."""
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
    """Where the axes end: a little above what is largest, or at the edge that triangles stand at."""
    largest = max((float(each.max()) for each in comparison.over_depth.values() if each.size), default=0.0)
    return _TOP if largest <= _TOP else min(largest, _HIGHEST) + 0.04


def _below(shares: xr.DataArray) -> xr.DataArray:
    return shares.sel(bound="estimate") < _LOWEST


def _above(shares: xr.DataArray) -> xr.DataArray:
    return shares.sel(bound="estimate") > _HIGHEST


def _unbounded(shares: xr.DataArray) -> xr.DataArray:
    """Which of the shares that stand within the axes have no bounds."""
    return shares.sel(bound=["low", "high"]).isnull().any("bound") & ~_below(shares) & ~_above(shares)


def _panel(axes: Axes, comparison: Comparison, kind: ComponentKind, names: list[str]) -> None:
    axes.set_title(_TITLES[kind])
    if not any(comparison.over_depth[name, kind].size for name in names if (name, kind) in comparison.over_depth):
        absent(axes, "none removes enough\nto be restored")
        return
    zero_line(axes)
    axes.axhline(1, color=style.GREY, linewidth=0.5, linestyle=":", zorder=0)
    for i, name in enumerate(names):
        colour, marker = _LOOKS[i % len(_LOOKS)]
        shares = comparison.over_depth.get((name, kind))
        if shares is None:
            continue
        # Side by side where they stand at one depth.
        x = shares["relative_depth"].values + 0.008 * (i - (len(names) - 1) / 2)
        y, low, high = (shares.sel(bound=bound).values for bound in ("estimate", "low", "high"))
        below, above, unbounded = (which(shares).values for which in (_below, _above, _unbounded))
        sure = ~(below | above | unbounded)
        around = np.array([y - low, high - y])[:, sure].clip(0)
        axes.errorbar(x[sure], y[sure], around, color=colour, marker=marker, markersize=4, linestyle="", elinewidth=0.8)
        axes.plot(x[unbounded], y[unbounded], marker, color=colour, markersize=4, markerfacecolor="none")
        for beyond, edge, triangle in ((below, _LOWEST - 0.04, "v"), (above, _HIGHEST + 0.04, "^")):
            if beyond.any():  # no points that aren't clipped have no place, which would spoil the layout
                axes.plot(x[beyond], np.full(beyond.sum(), edge), triangle, color=colour, markersize=4, clip_on=False)
    axes.set_xlim(-0.04, 1.04)
    axes.set_xlabel("Relative depth of the ablated part")
