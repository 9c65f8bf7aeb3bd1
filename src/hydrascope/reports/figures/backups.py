"""The figure of a search for backups: reactions against clean contributions."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hydrascope.measures import Bootstrap, select_readout
from hydrascope.reports.figures import style
from hydrascope.reports.figures.panels import name_run, panel_letter, printable
from hydrascope.reports.flow.source import source_of_analysis
from hydrascope.reports.summary.backup_table import BackupRow, backup_rows

#: The most seed sets that are drawn.
MOST = 3
#: The names of the quadrants, with the sides of each: right or left, top or bottom.
_QUADRANTS = (
    ("brake lets go", "left", "top"),
    ("substitute", "right", "top"),
    ("brake presses", "left", "bottom"),
    ("follows down", "right", "bottom"),
)


def figure_backups(found: xr.Dataset, readout: str | None = None, bootstrap: Bootstrap | None = None) -> Figure:
    """Draw the reaction of each candidate against its contribution in the clean pass.

    A panel for each of the first three seed sets. Bounds hold for all candidates of a seed set at once. Backups are
    filled and named; candidates that aren't downstream, and so can't react, are hollow and grey.

        figure_backups(hydrascope.analyses.backups(model, prompts, of="attn.3")).savefig("backups.png")

    Args:
        found: the result of `hydrascope.analyses.backups`.
        readout: the readout's label; by default the first.
        bootstrap: how bounds are drawn.

    Raises:
        HydrascopeError: there is no such readout.
    """
    rows = backup_rows(found, readout, bootstrap)
    seeds = list(dict.fromkeys(row.seed for row in rows))[:MOST]
    unit = str(found.attrs.get("units", "logits"))
    with style.style():
        width = style.COLUMN if len(seeds) < 2 else style.PAGE
        figure = Figure(figsize=(width, 2.9), layout="constrained")
        name_run(figure, source_of_analysis(select_readout(found, readout)))
        panels = figure.subplots(1, max(len(seeds), 1), squeeze=False)[0]
        for axes, letter, seed in zip(panels, "abc", seeds, strict=False):
            of_seed = [row for row in rows if row.seed == seed]
            panel_letter(axes, letter if len(seeds) > 1 else "", f"{printable(seed, 34)} ablated")
            _draw(axes, of_seed)
            axes.set_xlabel(f"Clean contribution ({unit})")
        panels[0].set_ylabel(f"Reaction ({unit})")
        entries = [axes.get_legend_handles_labels() for axes in panels]
        drawn = {label: handle for handles, labels in entries for handle, label in zip(handles, labels, strict=True)}
        figure.legend(
            drawn.values(), drawn.keys(), loc="outside lower center", ncols=3, handletextpad=0.1, columnspacing=0.8
        )
    return figure


def _draw(axes: Axes, rows: list[BackupRow]) -> None:
    """Draw the candidates of one seed set."""
    for line in (axes.axhline, axes.axvline):
        line(0, color=style.GREY, linewidth=0.5, zorder=0)
    kinds = (
        ("not downstream", [row for row in rows if not row.downstream], "none", style.GREY, 1),
        ("no backup", [row for row in rows if row.downstream and not row.is_backup], "none", style.BLACK, 2),
        ("backup", [row for row in rows if row.is_backup], style.BLUE, style.BLUE, 3),
    )
    for label, some, face, edge, order in kinds:
        if not some:
            continue
        x, y = (np.array([getattr(row, name).estimate for row in some]) for name in ("clean", "reaction"))
        if label != "not downstream":
            low, high = (np.array([getattr(row.reaction, side) for row in some]) for side in ("low", "high"))
            axes.vlines(x, low, high, color=edge, linewidth=0.6, zorder=order)
        axes.scatter(x, y, s=11, facecolors=face, edgecolors=edge, linewidths=0.6, zorder=order + 0.5, label=label)
    _frame(axes, rows)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
    for row in rows:
        if row.is_backup:
            beside = (5, 0) if row.clean.estimate < 0 else (-5, 0)
            axes.annotate(
                row.candidate,
                (row.clean.estimate, row.reaction.estimate),
                beside,
                textcoords="offset points",
                ha="left" if row.clean.estimate < 0 else "right",
                va="center",
                fontsize=6,
                zorder=5,
            )
    for name, side, end in _QUADRANTS:
        axes.text(
            0.02 if side == "left" else 0.98,
            0.98 if end == "top" else 0.02,
            name,
            transform=axes.transAxes,
            ha=side,
            va=end,
            fontsize=6,
            color=style.GREY,
            zorder=0,
        )


def _frame(axes: Axes, rows: list[BackupRow]) -> None:
    """Set limits in which every quadrant has room for its name."""
    reactions = [value for row in rows for value in (row.reaction.estimate, row.reaction.low, row.reaction.high)]
    for set_limits, values in ((axes.set_xlim, [row.clean.estimate for row in rows]), (axes.set_ylim, reactions)):
        low, high = min(0.0, *np.nan_to_num(values)), max(0.0, *np.nan_to_num(values))
        room = 0.1 * (high - low or 1.0)
        low, high = low - room, high + room
        set_limits(min(low, -0.4 * high), max(high, -0.4 * low))
