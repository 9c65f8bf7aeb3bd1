"""The figure of an analysis of edges: a matrix of sources and readers."""

import numpy as np
import xarray as xr
from matplotlib.cm import ScalarMappable
from matplotlib.colors import AsinhNorm, LinearSegmentedColormap
from matplotlib.figure import Figure

from hydrascope.measures import select_readout
from hydrascope.reports.colour_scale import COST, GAIN, map_scale
from hydrascope.reports.figures import style
from hydrascope.reports.figures.panels import name_run, printable
from hydrascope.reports.flow.source import source_of_analysis
from hydrascope.reports.summary.tick_text import tick_text

_COLOURS = LinearSegmentedColormap.from_list("edges", [*reversed(GAIN), *COST])
#: The most labels on an axis.
_LABELLED = 31
#: The colour of cells where there is no edge.
_NOWHERE = "#e9e9e9"


def figure_edges(found: xr.Dataset, readout: str | None = None) -> Figure:
    """Draw the mean effect of every edge as a matrix of sources and readers.

    It is the loss of the readout where the reader alone reads what ablating the source changes. Warm is a loss, blue a
    gain; the scale is compressed, asinh(loss / 0.1), and nothing is clipped. Grey cells are no edges, since the reader
    isn't downstream of the source.

        figure_edges(hydrascope.analyses.edges(model, prompts)).savefig("edges.png")

    Args:
        found: the result of `hydrascope.analyses.edges`.
        readout: the readout's label; by default the first.

    Raises:
        HydrascopeError: there is no such readout.
    """
    chosen = select_readout(found, readout)
    loss = -chosen["edge"].mean("prompt").transpose("source", "reader").values
    loss = np.where(found["exists"].values, loss, np.nan)
    unit = str(found.attrs.get("units", "logits"))
    scale = map_scale(np.nan_to_num(loss), unit)
    norm = AsinhNorm(scale.linear, vmin=-scale.most, vmax=scale.most)
    rows, columns = loss.shape
    with style.style():
        height = float(np.clip(1.6 + 0.11 * rows, 2.6, 8.6))
        figure = Figure(figsize=(style.PAGE, height), layout="constrained")
        name_run(figure, source_of_analysis(chosen))
        axes = figure.subplots()
        axes.set_facecolor(_NOWHERE)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.pcolormesh(np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5, loss, cmap=_COLOURS, norm=norm)
        axes.set_ylim(rows - 0.5, -0.5)
        axes.tick_params(length=0)
        for axis, labels in ((axes.yaxis, found["source"].values), (axes.xaxis, found["reader"].values)):
            step = -(-len(labels) // _LABELLED)
            shown = list(range(0, len(labels), step))
            axis.set_ticks(shown, [printable(str(labels[place]), 14) for place in shown])
        axes.tick_params(axis="x", rotation=90)
        axes.set_ylabel("Source, ablated")
        axes.set_xlabel("Reader")
        bar = figure.colorbar(ScalarMappable(norm, _COLOURS), ax=axes, aspect=40, pad=0.01)
        ticks = [*(-tick for tick in reversed(scale.ticks)), 0.0, *scale.ticks]
        bar.set_ticks(ticks, labels=[tick_text(tick, 2) for tick in ticks])
        bar.minorticks_off()
        bar.outline.set_visible(False)
        bar.set_label(f"Loss of {printable(str(chosen['readout'].values), 20)} ({unit})")
    return figure
