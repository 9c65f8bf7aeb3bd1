"""The figure of a trajectory: what is removed and restored over checkpoints."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hydrascope.reports.figures import style
from hydrascope.reports.figures.limits import informative, mark_beyond, slope_limits
from hydrascope.reports.figures.panels import COLOUR, KINDS, NAME, band, panel_letter, printable, zero_line
from hydrascope.reports.flow.naming import prompts_name
from hydrascope.reports.summary.trajectory_table import steps_of, target_in_words
from hydrascope.utils.text import counted

#: The panels: a variable, and its title.
_PANELS = (
    ("removed", "Removed"),
    ("restored", "Share restored"),
    ("restored_slope", "Restored slope"),
)
#: Steps that span more than this factor have a logarithmic axis.
_WIDE = 20
#: The most labels of checkpoints that are written level.
_LEVEL = 4


def figure_trajectory(found: xr.Dataset) -> Figure:
    """Draw what is removed, the share restored and the restored slope over checkpoints.

    A thick line is the median over the sublayers of a kind that surely write for the readout, with its interval; that
    of shares is over those that write and have a share in every checkpoint. A thin
    line is one ablated component. Labels that end in rising steps (`step1000`) are spaced by these, on a logarithmic
    axis if they span more than a factor of 20; others are spaced evenly. Triangles at the edges are medians beyond;
    thin lines may leave the panel. Shares and slopes are drawn where the sublayer surely writes.

        >>> few = hs.measures.Bootstrap(resamples=50)
        >>> figure = figure_trajectory(hs.measures.trajectory({"step1": results, "step2": results}, few))

    Args:
        found: the result of `hydrascope.measures.trajectory`.
    """
    with style.style():
        figure = Figure(figsize=(style.PAGE, 2.75), layout="constrained")
        figure.suptitle(printable(_origin(found), 150), fontsize=5.5, color=style.DIM)
        for axes, letter, (name, title) in zip(figure.subplots(1, 3), "abc", _PANELS, strict=True):
            unit = f" ({found.attrs.get('units', 'logits')})" if name == "removed" else ""
            panel_letter(axes, letter, f"{title}{unit}")
            x = _checkpoint_axis(axes, found)
            _panel(axes, found, name, x)
        figure.legend(handles=_legend(found), loc="outside lower center", ncols=3)
    return figure


def _origin(found: xr.Dataset) -> str:
    """Return the line on what was measured, without the model: it is another in each checkpoint."""
    attributes = found.attrs
    prompts = prompts_name(attributes).partition(" answered by ")[0]
    return " · ".join(
        [
            f"{prompts + ', ' if prompts else ''}{counted(int(attributes['prompt_count']), 'prompt', 'prompts')}",
            f"{attributes.get('ablation', 'ablation')} at {attributes.get('positions', 'last')}",
            f"Readout: {attributes['readout']}, target: {target_in_words(found)}",
        ]
    )


def _checkpoint_axis(axes: Axes, found: xr.Dataset) -> np.ndarray:
    """Set the horizontal axis; return the places of the checkpoints."""
    labels, steps = [str(label) for label in found["checkpoint"].values], steps_of(found)
    if steps is None:
        places = np.arange(len(labels), dtype=float)
        level = len(labels) <= _LEVEL and max(map(len, labels)) <= 8
        axes.set_xticks(places, [printable(label, 16) for label in labels], rotation=0 if level else 90)
        axes.set_xlabel("Checkpoint")
        margin = max(0.04 * (len(labels) - 1), 0.25)
        axes.set_xlim(-margin, len(labels) - 1 + margin)
        return places
    positive = steps[steps > 0]
    axes.set_xlabel("Training step")
    if len(positive) and positive[-1] > _WIDE * positive[0]:
        # A step 0 has no logarithm: below the first step the axis is linear.
        if steps[0] == 0:
            axes.set_xscale("symlog", linthresh=float(positive[0]), linscale=0.5)
        else:
            axes.set_xscale("log")
    else:
        axes.set_xticks(steps if len(steps) <= 6 else steps[:: -(-len(steps) // 6)])
        axes.margins(x=0.04)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 10_000 else f"{value:g}")
    axes.minorticks_off()
    return steps


def _panel(axes: Axes, found: xr.Dataset, name: str, x: np.ndarray) -> None:
    kinds = [str(kind) for kind in found["ablated_kind"].values]
    lines = found[name].sel(bound="estimate").transpose("ablated", "checkpoint").values
    medians = {
        kind: found[f"median_{name}"].sel(kind=kind)
        for kind in KINDS
        if "kind" in found.coords and kind in found["kind"].values
    }
    axes.set_ylim(_limits(name, lines, list(medians.values())))
    zero_line(axes)
    if name != "removed":
        axes.axhline(1, color=style.GREY, linewidth=0.5, linestyle=":", zorder=0)
        axes.annotate(
            "all restored",
            (1, 1),
            (0, 1.5),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            fontsize=5.5,
            color=style.DIM,
        )
    writes = found["writes"].transpose("ablated", "checkpoint").values
    for line, kind, some in zip(lines, kinds, writes, strict=True):
        if name == "removed" or kind not in medians or some.any():
            # Shares and slopes of sublayers that hardly write say little.
            shown = line if name == "removed" or kind not in medians else np.where(some, line, np.nan)
            colour = COLOUR["attn" if kind == "attn" else "mlp"] if kind in KINDS else style.GREY
            axes.plot(x, shown, color=colour, linewidth=0.6, alpha=0.25, marker=".", markersize=1.5, zorder=1)
    for kind, bounds in medians.items():
        estimate = bounds.sel(bound="estimate").values
        band(axes, x, bounds, COLOUR[kind])
        axes.plot(x, estimate, color=COLOUR[kind], linewidth=2.4, marker="o", markersize=4, zorder=3)
        mark_beyond(axes, x, estimate[None], axes.get_ylim(), COLOUR[kind])


def _limits(name: str, lines: np.ndarray, medians: list[xr.DataArray]) -> tuple[float, float]:
    """Return limits that show all medians; of shares and slopes from −1 to 2 at most."""
    if name != "removed":
        thick = [each.sel(bound="estimate").values for each in medians] or [lines]
        low, high = slope_limits(*thick)
        return min(low, -0.25), max(high, 1.15)
    return informative(lines.T if len(lines) else np.zeros((1, 1)))


def _legend(found: xr.Dataset) -> list[Line2D]:
    kinds = [kind for kind in KINDS if "kind" in found.coords and kind in found["kind"].values]
    thick = [
        Line2D([], [], color=COLOUR[kind], linewidth=2.4, marker="o", markersize=4, label=f"{NAME[kind]}: median")
        for kind in kinds
    ]
    label = "one sublayer" if kinds else "one component"
    return [*thick, Line2D([], [], color=style.GREY, linewidth=0.6, marker=".", markersize=1.5, label=label)]
