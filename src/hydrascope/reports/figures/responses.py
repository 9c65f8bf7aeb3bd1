"""The figure of responses: the mean response of every sublayer to every ablation."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hydrascope.measures import BOUNDS, Bootstrap, Effects, block_numbers, depth, responses, takes_effects
from hydrascope.measures.labels import in_order
from hydrascope.reports.colour_scale import removal_signs, scale_of
from hydrascope.reports.figures import style
from hydrascope.reports.figures.heatmaps import divide, draw_matrix, draw_scale, fade_rows, name_rows
from hydrascope.reports.figures.panels import name_reading, panel_letter


@takes_effects
def figure_responses(effects: Effects, bootstrap: Bootstrap | None = None) -> Figure:
    """Draw the mean response ΔDE of every sublayer to every ablation [ablated, component].

    Panel (a) shows all responses, panel (b) those that are surely not 0, by bounds that hold for all responses at once.
    Blue writes against the change that the ablation makes directly, orange with it. Rows whose ablation removes nothing
    sure are faint, and blue writes more there. Cells that aren't downstream are empty.

        >>> figure = figure_responses(effects, hs.measures.Bootstrap(resamples=50))

    Args:
        effects: the effects of a run (`hydrascope.measures.per_prompt`).
        bootstrap: the resampling that gives the bounds.
    """
    ordered = effects.isel({dim: in_order(list(map(str, effects[dim].values))) for dim in ("ablated", "component")})
    names = list(map(str, ordered["ablated"].values))
    bounds = responses(ordered, bootstrap)
    mean, low, high = (bounds.sel(bound=bound).values for bound in BOUNDS)
    sure = np.where(np.isnan(mean) | (low > 0) | (high < 0), mean, 0.0)
    signs = removal_signs(ordered, bootstrap or Bootstrap())
    towards = np.where(signs == 0, 1.0, signs)[:, None]
    unsure = [row for row, sign in enumerate(signs) if sign == 0 and signs.any()]
    scale = scale_of(mean)
    with style.style():
        rows = len(mean)
        figure = Figure(figsize=(style.PAGE, float(np.clip(1.6 + 0.06 * rows, 3.0, 7.5))), layout="constrained")
        name_reading(figure, effects)
        left, right = figure.subplots(1, 2, sharey=True)
        images = [draw_matrix(axes, towards * values, scale) for axes, values in ((left, mean), (right, sure))]
        for axes in (left, right):
            fade_rows(axes, unsure)
            _label(axes, ordered)
            divide(axes, rows=names)
        name_rows(left, names, 24)
        left.set_ylabel("Ablated")
        panel_letter(left, "a", "Mean response")
        panel_letter(right, "b", "Surely not 0")
        label = f"Against the change (blue), with it (orange): ΔDE ({effects.unit})"
        draw_scale(figure, images[0], (left, right), scale, label)
    return figure


def _label(axes: Axes, effects: Effects) -> None:
    """Label the blocks of the responding sublayers on the horizontal axis."""
    blocks = block_numbers(effects["component"])
    step = max(1, -(-depth(effects) // 10))
    firsts = [blocks.index(block) for block in range(0, depth(effects), step) if block in blocks]
    axes.set_xticks(firsts, [str(blocks[first]) for first in firsts])
    axes.set_xlabel("Responding sublayer, by block")
