"""The figure of responses: the mean response of every sublayer to every ablation."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hydrascope.measures import BOUNDS, Bootstrap, Effects, depth, responses, takes_effects
from hydrascope.measures.labels import in_order
from hydrascope.reports.colour_scale import scale_of
from hydrascope.reports.figures import style
from hydrascope.reports.figures.heatmaps import divide, draw_matrix, name_rows
from hydrascope.reports.figures.panels import name_reading, panel_letter


@takes_effects
def figure_responses(effects: Effects, bootstrap: Bootstrap | None = None) -> Figure:
    """Draw the mean response ΔDE of every sublayer to every ablation [ablated, component].

    Panel (a) shows all responses, panel (b) those that are surely not 0, by bounds that hold for all responses at once.
    A sublayer that isn't downstream of the ablation is grey.

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
    most = scale_of(mean)
    with style.style():
        rows = len(mean)
        figure = Figure(figsize=(style.PAGE, float(np.clip(1.6 + 0.06 * rows, 3.0, 7.5))), layout="constrained")
        name_reading(figure, effects)
        left, right = figure.subplots(1, 2, sharey=True)
        images = [draw_matrix(axes, values, most) for axes, values in ((left, mean), (right, sure))]
        for axes in (left, right):
            _label(axes, ordered)
            divide(axes, rows=names)
        name_rows(left, names, 24)
        left.set_ylabel("Ablated")
        panel_letter(left, "a", "Mean response")
        panel_letter(right, "b", "Surely not 0")
        label = f"Mean change of direct effect, ΔDE ({effects.unit})"
        figure.colorbar(images[0], ax=(left, right), label=label, aspect=30, pad=0.02, extend="both")
    return figure


def _label(axes: Axes, effects: Effects) -> None:
    """Label the responding sublayers on the horizontal axis: attention, then MLPs."""
    top = depth(effects)
    step = max(1, -(-top // 6))
    blocks = [*range(0, top, step)]
    axes.set_xticks([*blocks, *(top + block for block in blocks)], [*map(str, blocks), *map(str, blocks)])
    axes.axvline(top - 0.5, color=style.BLACK, linewidth=0.6)
    axes.set_xlabel("Responding sublayer: attention | MLP")
