"""The figure of heads: the loss by each head's ablation, and its direct effect."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hydrascope.measures import Effects, block_numbers, depth, of_kind, takes_effects, unit_numbers
from hydrascope.reports.colour_scale import scale_of
from hydrascope.reports.figures import style
from hydrascope.reports.figures.heatmaps import draw_matrix, draw_scale
from hydrascope.reports.figures.panels import name_reading, panel_letter
from hydrascope.reports.summary.tick_text import tick_text
from hydrascope.utils.errors import HydrascopeError


@takes_effects
def figure_heads(effects: Effects) -> Figure:
    """Draw the mean loss and the mean direct effect of each head, a square per head.

    Panel (a) shows −`total`, panel (b) DE if heads were read; both have one colour scale, orange above 0. A head that
    wasn't ablated is empty. If only positions before the last are ablated, there is no panel (b).

        >>> heads = hs.measures.per_prompt(hs.sweep(model, prompts, hs.Zero(), ablate="heads.3"))
        >>> figure = figure_heads(heads)

    Args:
        effects: the effects of a run (`hydrascope.measures.per_prompt`).

    Raises:
        HydrascopeError: no head was ablated.
    """
    effects = of_kind(effects, "ablated", "head")
    if not effects.sizes["ablated"]:
        raise HydrascopeError("the figure of heads shows ablated heads, and this run ablated none: ablate heads, too")
    panels = [("Lost, −Δ ablate", -effects["total"])]
    if effects["ablated_read"].all() and effects["direct"].any():
        panels.append(("Direct effect, Δ unembed", effects["contribution"]))
    squares = [_square(values.mean("prompt", skipna=False), depth(effects)) for _, values in panels]
    scale = scale_of(*squares)
    with style.style():
        figure = Figure(figsize=(style.PAGE if len(panels) > 1 else style.COLUMN, 3.2), layout="constrained")
        name_reading(figure, effects)
        row = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, letter, (title, _), square in zip(row, "ab", panels, squares, strict=False):
            # Orange is what the answer loses, or would lose.
            image = draw_matrix(axes, -square, scale)
            axes.set_xlabel("Head")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(integer=True, nbins=12, min_n_ticks=1))
            panel_letter(axes, letter if len(panels) > 1 else "", title)
        row[0].set_ylabel("Block")
        over = "Mean over prompts" if effects.sizes["prompt"] > 1 else "On one prompt"
        bar = draw_scale(figure, image, row, scale, f"{over} ({effects.unit})")
        bar.ax.invert_yaxis()
        ticks = list(map(float, bar.get_ticks()))
        bar.set_ticks(ticks, labels=[tick_text(-tick) for tick in ticks])
    return figure


def _square(means: xr.DataArray, rows: int) -> np.ndarray:
    """Return the mean of each head as [block, head]; NaN if it wasn't ablated."""
    blocks, columns = block_numbers(means["ablated"]), unit_numbers(means["ablated"])
    square = np.full((rows, 1 + max(columns)), np.nan)
    square[blocks, columns] = means.values
    return square
