"""Results side by side: what is restored, over depth."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hydrascope.comparison import Comparison
from hydrascope.figures import style
from hydrascope.figures.panels import absent, band, printable, zero_line
from hydrascope.measures import PartKind

#: Distinguishable with any kind of colour vision, and in greyscale by their markers.
_LOOKS = (
    (style.BLUE, "o", "-"),
    (style.VERMILION, "s", "--"),
    (style.GREEN, "^", "-."),
    (style.PURPLE, "D", ":"),
    (style.ORANGE, "v", "-"),
    (style.SKY, "P", "--"),
    (style.BLACK, "X", "-."),
)
_TITLES: dict[PartKind, str] = {
    "attn": "Attention layers ablated",
    "mlp": "MLP layers ablated",
    "head": "Heads ablated",
    "neuron": "Neurons ablated",
}


def figure_comparison(comparison: Comparison) -> Figure:
    """The share that is restored of what each ablated part removes, a panel a kind of part, a line a result.

    Over depth, from the first layer at 0 to the last at 1. Bands are confidence intervals. Parts that remove too
    little of the readout to be spoken of are left out.

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
        handles, labels = next(
            (each.get_legend_handles_labels() for each in row if each.get_legend_handles_labels()[0]), ([], [])
        )
        if handles:
            figure.legend(handles, labels, loc="outside lower center", ncols=min(len(names), 3))
    return figure


def _panel(axes: Axes, comparison: Comparison, kind: PartKind, names: list[str]) -> None:
    axes.set_title(_TITLES[kind])
    if not any(comparison.over_depth[name, kind].size for name in names if (name, kind) in comparison.over_depth):
        absent(axes, "none removes enough\nto be restored")
        return
    zero_line(axes)
    axes.axhline(1, color=style.GREY, linewidth=0.5, linestyle=":", zorder=0)
    for i, name in enumerate(names):
        colour, marker, line = _LOOKS[i % len(_LOOKS)]
        shares = comparison.over_depth.get((name, kind))
        x = np.array([]) if shares is None else shares["relative_depth"].values
        y = np.array([]) if shares is None else shares.sel(bound="estimate").values
        if shares is not None and x.size:
            band(axes, x, shares, colour)
        line = line if kind in ("attn", "mlp") else ""
        axes.plot(x, y, color=colour, marker=marker, linestyle=line, markersize=3.5, label=printable(name, 40))
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(-1.05, 1.3)
    axes.set_xlabel("Relative depth of the ablated part")
