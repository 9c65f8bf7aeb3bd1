"""The figure of responses: the mean response of every sublayer to every ablation."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hydrascope.measures import BOUNDS, Bootstrap, Effects, block_numbers, depth, outcome, responses, takes_effects
from hydrascope.measures.labels import in_order
from hydrascope.reports.colour_scale import removal_signs, scale_of
from hydrascope.reports.figures import style
from hydrascope.reports.figures.heatmaps import (
    divide,
    draw_key,
    draw_matrix,
    draw_scale,
    fade_rows,
    has_corner,
    name_rows,
)
from hydrascope.reports.figures.outcome_bars import draw_outcomes
from hydrascope.reports.figures.panels import name_reading, panel_letter

#: The width of the bars, as a share of a matrix's, where there are two matrices and where there is one.
_BARS = (0.3, 0.4)


@takes_effects
def figure_responses(effects: Effects, bootstrap: Bootstrap | None = None) -> Figure:
    """Draw the mean response ΔDE of every sublayer to every ablation [ablated, component].

    Panel (a) shows all responses, panel (b) those that are surely not 0, by bounds that hold for all responses at once;
    of a single prompt there is no panel (b).
    Blue writes against the change that the ablation makes directly, orange with it. Rows whose ablation removes nothing
    sure are faint, and blue writes more there. Cells that aren't downstream are empty; the key of the colours stands
    there if there is room. Bars at the end of each row show what the ablation removes, in outline, and what is lost.

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
        rows, single = len(mean), effects.sizes["prompt"] == 1
        figure = Figure(
            figsize=(style.COLUMN if single else style.PAGE, float(np.clip(1.6 + 0.06 * rows, 3.0, 7.5))),
            layout="constrained",
        )
        name_reading(figure, effects)
        # A single prompt has no bounds, so nothing is sure.
        shown = {"Mean response": mean, "Surely not 0": sure} if not single else {"Response on one prompt": mean}
        widths = [1.0] * len(shown) + [_BARS[single]]
        *row, beside = figure.subplots(1, len(widths), sharey=True, width_ratios=widths)
        for axes, letter, (title, values) in zip(row, "ab", shown.items(), strict=False):
            image = draw_matrix(axes, towards * values, scale)
            fade_rows(axes, unsure)
            _label(axes, ordered)
            divide(axes, rows=names)
            panel_letter(axes, letter if len(shown) > 1 else "", title)
        draw_outcomes(beside, *_outcomes(ordered))
        beside.set_xlabel(effects.unit)
        name_rows(row[0], names, 24)
        row[0].set_ylabel("Ablated")
        if has_corner(mean):
            draw_key(figure, row[0], image, scale, ("with the change", "against it"), f"ΔDE ({effects.unit})")
        else:
            label = f"Against the change (blue), with it (orange): ΔDE ({effects.unit})"
            draw_scale(figure, image, [*row, beside], scale, label)
    return figure


def _outcomes(effects: Effects) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of what each ablation removes and of what is lost.

    The first are NaN if nothing is removed directly.
    """
    means = outcome(effects).mean("prompt")
    removed = means["removed"].values
    return removed if effects["direct"].any() else np.full_like(removed, np.nan), means["lost"].values


def _label(axes: Axes, effects: Effects) -> None:
    """Label the blocks of the responding sublayers on the horizontal axis."""
    blocks = block_numbers(effects["component"])
    step = max(1, -(-depth(effects) // 10))
    firsts = [blocks.index(block) for block in range(0, depth(effects), step) if block in blocks]
    axes.set_xticks(firsts, [str(blocks[first]) for first in firsts])
    axes.set_xlabel("Responding sublayer, by block")
