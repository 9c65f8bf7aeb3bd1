"""The figure of faithfulness over the size of a circuit."""

import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hydrascope.measures import select_readout
from hydrascope.reports.figures import style
from hydrascope.reports.figures.panels import band, name_run, printable, zero_line
from hydrascope.reports.flow.source import source_of_analysis


def figure_circuit(found: xr.Dataset, readout: str | None = None) -> Figure:
    """Draw faithfulness over the number of kept components; 1 is the whole model.

        figure_circuit(hydrascope.analyses.faithfulness(model, prompts, order=order)).savefig("circuit.png")

    Args:
        found: the result of `hydrascope.analyses.faithfulness`.
        readout: the readout's label; by default the first.

    Raises:
        HydrascopeError: there is no such readout.
    """
    found = select_readout(found, readout)
    kept, bounds = found["kept"].values, found["faithfulness"]
    with style.style():
        figure = Figure(figsize=(style.COLUMN, 2.8), layout="constrained")
        name_run(figure, source_of_analysis(found))
        axes = figure.subplots()
        zero_line(axes)
        axes.axhline(1, color=style.GREY, linewidth=0.5, linestyle=":", zorder=0)
        band(axes, kept, bounds, style.BLUE)
        axes.plot(kept, bounds.sel(bound="estimate"), "o-", color=style.BLUE)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("Components kept, the others ablated")
        axes.set_ylabel(printable(f"Faithfulness f, {found['readout'].values}"))
    return figure
