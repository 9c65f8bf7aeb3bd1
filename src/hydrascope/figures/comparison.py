"""Results side by side: what is restored, over depth."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hydrascope.comparison import Comparison
from hydrascope.figures import style
from hydrascope.figures.panels import absent, printable, zero_line
from hydrascope.measures import PartKind

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
#: What lies lower, where much more is lost than removed, is a triangle at the edge.
_LOWEST = -1.0
_TITLES: dict[PartKind, str] = {
    "attn": "Attention layers ablated",
    "mlp": "MLP layers ablated",
    "head": "Heads ablated",
    "neuron": "Neurons ablated",
}


def figure_comparison(comparison: Comparison) -> Figure:
    """The share that is restored of what each ablated part removes, a panel a kind of part, a colour a result.

    Over depth, from the first layer at 0 to the last at 1, with confidence intervals. Parts that remove too little of
    the readout to be spoken of are left out; a triangle at the lower edge is a part without which more than twice what
    it removes is lost.

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
        colour, marker = _LOOKS[i % len(_LOOKS)]
        shares = comparison.over_depth.get((name, kind))
        if shares is None:
            continue
        # Side by side where they stand at one depth.
        x = shares["relative_depth"].values + 0.008 * (i - (len(names) - 1) / 2)
        y, low, high = (shares.sel(bound=bound).values for bound in ("estimate", "low", "high"))
        seen = y >= _LOWEST
        around = np.nan_to_num([y - low, high - y]).clip(0)
        axes.errorbar(
            x[seen],
            y[seen],
            around[:, seen],
            color=colour,
            marker=marker,
            markersize=4,
            linestyle="",
            elinewidth=0.8,
            label=printable(name, 40),
        )
        if not seen.all():
            edge = np.full((~seen).sum(), _LOWEST - 0.04)
            axes.plot(x[~seen], edge, "v", color=colour, markersize=4, clip_on=False)
    axes.set_xlim(-0.04, 1.04)
    axes.set_ylim(_LOWEST - 0.04, 1.3)
    axes.set_xlabel("Relative depth of the ablated part")
