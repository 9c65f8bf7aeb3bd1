"""The figures of mediation, interactions and path patching."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from hydrascope.measures import Bootstrap, interactions, mediation, select_readout
from hydrascope.measures.labels import in_order
from hydrascope.reports.colour_scale import removal_signs, scale_of
from hydrascope.reports.figures import style
from hydrascope.reports.figures.heatmaps import divide, draw_matrix, draw_scale, fade_rows, name_columns, name_rows
from hydrascope.reports.figures.panels import name_reading, name_run, panel_letter, printable
from hydrascope.reports.flow.source import source_of_analysis
from hydrascope.reports.summary.summarise import read_effects


def figure_mediation(results: xr.Dataset, readout: str | None = None) -> Figure:
    """Draw the mediators' reactions [ablated, mediator], means over prompts on one scale.

    Panel (a) shows the response, the change of what the mediator writes. Panel (b) shows the loss when the mediator is
    frozen and all others are free, panel (c) the gain when everything else downstream is frozen. Blue makes up for the
    ablation, orange adds to it. Empty cells are not downstream or were not read; mediators downstream of nothing are
    left out. Rows are faint whose ablation removes nothing sure.

        figure_mediation(hydrascope.open_results("mediation.zarr")).savefig("mediation.png")

    Args:
        results: the results of a mediation.
        readout: the readout's label; by default the first.

    Raises:
        HydrascopeError: as `hydrascope.measures.mediation`, or there is no such readout.
    """
    found = select_readout(mediation(results), readout)
    found = found.isel({dim: in_order(list(map(str, found[dim].values))) for dim in ("ablated", "mediator")})
    reached = found["downstream"].any("ablated")
    found = found.isel(mediator=reached.values if reached.any() else slice(None))
    names = [list(map(str, found[dim].values)) for dim in ("ablated", "mediator")]
    panels = {
        "It writes more": found["response"],
        "Lost again without it": found["restored_by"],
        "Brought by it alone": found["restored_alone"],
    }
    effects = read_effects(results, str(found["readout"].values))
    signs = removal_signs(effects.sel(ablated=names[0]), Bootstrap())
    towards = np.where(signs == 0, 1.0, signs)[:, None]
    matrices = [
        towards * each.where(found["downstream"]).mean("prompt", skipna=False).values for each in panels.values()
    ]
    scale = scale_of(*matrices)
    with style.style():
        height = float(np.clip(2.0 + 0.07 * len(names[0]), 2.6, 7.5))
        figure = Figure(figsize=(style.PAGE, height), layout="constrained")
        name_reading(figure, effects)
        row = figure.subplots(1, 3, sharey=True)
        for axes, letter, title, matrix in zip(row, "abc", panels, matrices, strict=True):
            image = draw_matrix(axes, matrix, scale)
            fade_rows(axes, [row for row, sign in enumerate(signs) if sign == 0])
            name_columns(axes, names[1], 12)
            divide(axes, rows=names[0], columns=names[1])
            axes.set_xlabel("Mediator")
            panel_letter(axes, letter, title)
        name_rows(row[0], names[0], 24)
        row[0].set_ylabel("Ablated")
        draw_scale(figure, image, row, scale, _label(found, "Makes up (blue), adds to the damage (orange)"))
    return figure


def figure_interactions(results: xr.Dataset, readout: str | None = None) -> Figure:
    """Draw the mean interaction [first, second] of every pair of components.

    Below 0 (blue) each covers for the other, above 0 (orange) they need each other. Panel (a) is in the network's
    order. Panel (b) groups components with similar interactions: average linkage on the Euclidean distance of their
    rows, in optimal order (Bar-Joseph et al. 2001).

        figure_interactions(hydrascope.open_results("pairs.zarr")).savefig("interactions.png")

    Args:
        results: the results of interactions.
        readout: the readout's label; by default the first.

    Raises:
        HydrascopeError: as `hydrascope.measures.interactions`, or there is no such readout.
    """
    found = select_readout(interactions(results), readout)
    order = in_order(list(map(str, found["first"].values)))
    mean = found["interaction"].mean("prompt", skipna=False).values[np.ix_(order, order)]
    names = [str(found["first"].values[index]) for index in order]
    clustered = _clustered(mean)
    scale = scale_of(mean)
    with style.style():
        figure = Figure(figsize=(style.PAGE, 3.6), layout="constrained")
        name_reading(figure, read_effects(results, str(found["readout"].values)))
        row = figure.subplots(1, 2)
        panels = (
            (row[0], "a", "In the network’s order", range(len(names))),
            (row[1], "b", "Alike together", clustered),
        )
        for axes, letter, title, indices in panels:
            image = draw_matrix(axes, -mean[np.ix_(indices, indices)], scale)
            shown, step = [names[index] for index in indices], max(1, -(-len(names) // 24))
            ticks = range(0, len(names), step)
            axes.set_xticks(ticks, [shown[tick] for tick in ticks], rotation=90)
            axes.set_yticks(ticks, [shown[tick] for tick in ticks])
            panel_letter(axes, letter, title)
        divide(row[0], rows=names, columns=names)
        draw_scale(figure, image, row, scale, _label(found, "−interaction: covers (blue), needs (orange)"))
    return figure


def figure_paths(found: xr.Dataset, readout: str | None = None) -> Figure:
    """Draw each sender's effect through each receiver [sender, receiver], means over prompts.

    In panel (a) everything else is frozen, in panel (b) everything downstream of the receiver is free. Both have one
    scale, orange below 0; empty cells are not downstream.

        figure_paths(hydrascope.analyses.path_patching(model, prompts)).savefig("paths.png")

    Args:
        found: the result of `hydrascope.analyses.path_patching`.
        readout: the readout's label; by default the first.

    Raises:
        HydrascopeError: there is no such readout.
    """
    found = select_readout(found, readout)
    found = found.isel({dim: in_order(list(map(str, found[dim].values))) for dim in ("sender", "receiver")})
    rows, columns = (list(map(str, found[dim].values)) for dim in ("sender", "receiver"))
    panels = {"All else frozen at clean": found["frozen"], "All else free": found["free"]}
    matrices = [each.mean("prompt").where(found["downstream"]).values for each in panels.values()]
    scale = scale_of(*matrices)
    with style.style():
        height = float(np.clip(2.0 + 0.07 * len(rows), 2.6, 7.5))
        figure = Figure(figsize=(style.PAGE, height), layout="constrained")
        name_run(figure, source_of_analysis(found))
        row = figure.subplots(1, 2, sharey=True)
        for axes, letter, title, matrix in zip(row, "ab", panels, matrices, strict=True):
            image = draw_matrix(axes, matrix, scale)
            name_columns(axes, columns, 24)
            divide(axes, rows=rows, columns=columns)
            axes.set_xlabel("By way of")
            panel_letter(axes, letter, title)
        name_rows(row[0], rows, 24)
        row[0].set_ylabel("Ablated")
        draw_scale(figure, image, row, scale, _label(found, "Mean"))
    return figure


def _clustered(mean: np.ndarray) -> list[int]:
    """Return the order that groups components with similar interactions."""
    if len(mean) < 3:
        return list(range(len(mean)))
    rows = np.nan_to_num(mean)
    # The distance of two components leaves out their interaction with each other.
    square = ((rows[:, None] - rows[None]) ** 2).sum(-1) - 2 * rows**2
    flat = squareform(np.sqrt(square.clip(0)), checks=False)
    return [int(index) for index in leaves_list(optimal_leaf_ordering(linkage(flat, "average"), flat))]


def _label(found: xr.Dataset, quantity: str) -> str:
    name, unit = str(found["readout"].values), str(found.attrs.get("units", "logits"))
    return printable(f"{quantity}, {name} ({unit})")
