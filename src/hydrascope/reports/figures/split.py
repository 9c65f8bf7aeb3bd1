"""The figure of a split: shares that come back after whole changes and after their parts."""

import xarray as xr
from matplotlib.figure import Figure

from hydrascope.measures import Bootstrap
from hydrascope.measures.labels import in_order
from hydrascope.reports.figures import style
from hydrascope.reports.figures.panels import name_reading, panel_letter, printable
from hydrascope.reports.figures.shares import LIMITS, draw_shares, frame_shares
from hydrascope.reports.summary.split_rows import of_first_readout
from hydrascope.reports.summary.summarise import read_effects, summarise_split_without_findings

#: The most ablations that are drawn: those that remove most.
MOST = 24
#: The panels: a title, and per column of the split its name, colour and marker.
_PANELS = (
    (
        "Comes back after the whole change",
        (
            ("restored_slope", "ablated", style.BLACK, "o"),
            ("boost_slope", "doubled", style.GREY, "D"),
        ),
    ),
    (
        "Comes back of a part alone",
        (
            ("damping", "push along the readout", style.BLUE, "o"),
            ("content_repair", "the rest: content", style.ORANGE, "s"),
        ),
    ),
)


def figure_split(results: xr.Dataset, readout: str | None = None, bootstrap: Bootstrap | None = None) -> Figure:
    """Draw the splits of the ablations that surely remove, in the network's order, with bounds.

    Panel (a) shows the share that comes back after the whole ablation, and after its opposite. Panel (b) shows the
    share of the readout part that comes back, and what comes back of the content alone. Shares beyond the axis are
    written at its edge.

        figure_split(hydrascope.open_results("split.zarr")).savefig("split.png")

    Args:
        results: the results of a split.
        readout: the readout's label; by default the first.
        bootstrap: how bounds are drawn.

    Raises:
        HydrascopeError: as `hydrascope.measures.split`, or there is no such readout.
    """
    effects = read_effects(results, readout)
    summary = summarise_split_without_findings(results, effects, bootstrap or Bootstrap())
    sure = {each.ablated for each in summary.components if each.removed.low > 0}
    splits = of_first_readout(summary.splits)
    rows = [row for row in splits if row.ablated in sure][:MOST] or splits[:MOST]
    rows = [rows[place] for place in in_order([row.ablated for row in rows])]
    with style.style():
        figure = Figure(figsize=(style.PAGE, 1.35 + 0.15 * max(len(rows), 3)), layout="constrained")
        name_reading(figure, effects)
        panels = figure.subplots(1, 2, sharey=True)
        for axes, letter, (title, columns) in zip(panels, "ab", _PANELS, strict=True):
            panel_letter(axes, letter, title)
            frame_shares(axes, len(rows), LIMITS)
            for place, (name, label, colour, marker) in enumerate(columns):
                values = [getattr(row, name) for row in rows]
                draw_shares(axes, values, 0.36 * (place - 0.5), label, colour, marker)
            axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.06), ncols=2, handletextpad=0.2)
        panels[0].set_yticks(range(len(rows)), [printable(row.ablated, 24) for row in rows])
        panels[0].set_ylabel("Ablated")
    return figure
