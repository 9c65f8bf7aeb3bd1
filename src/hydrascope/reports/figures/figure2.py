"""Figure 2: unembedding and ablation disagree on how important a sublayer is."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hydrascope.measures import (
    Bootstrap,
    Effects,
    SublayerKind,
    agreement,
    block_numbers,
    depth,
    direct_effect,
    of_kind,
    takes_effects,
)
from hydrascope.reports.figures import style
from hydrascope.reports.figures.limits import Limits, clip_points, informative, mark_beyond
from hydrascope.reports.figures.panels import (
    COLOUR,
    KINDS,
    NAME,
    NO_REGRESSION,
    ablated_blocks,
    absent,
    band,
    block_axis,
    can_regress,
    cloud,
    depth_bar,
    depth_scale,
    faint_lines,
    name_reading,
    panel_letter,
    zero_line,
)

MARKER: dict[SublayerKind, str] = {"attn": "o", "mlp": "^"}


@takes_effects
def figure2(effects: Effects, bootstrap: Bootstrap | None = None) -> Figure:
    """Draw Δ_unembed and Δ_ablate of every sublayer, and their agreement (the paper's Figure 2).

    Panels (a) and (b) show `unembed` and −`total` per block: prompts in grey, their mean in colour. Panel (c) plots one
    against the other. Panel (d) shows their correlation over prompts, and (e) the share of prompts with `unembed` >
    −`total`. (a) and (b) have one vertical axis. Axes are clipped where few prompts or blocks would flatten all others;
    triangles and numbers stand for what is beyond. (d) and (e) need three prompts.

        >>> figure = figure2(effects)

    Args:
        effects: the effects of a run (`hydrascope.measures.per_prompt`).
        bootstrap: the resampling that gives the intervals in (d) and (e).

    Raises:
        HydrascopeError: no sublayer was ablated.
    """
    effects = ablated_blocks(effects)
    direct, lost = direct_effect(effects), -effects["total"]
    top = depth(effects)
    measured = (effects["unembed"], "component"), (lost, "ablated")
    limits = _shared_limits([values.transpose("prompt", dim).values for values, dim in measured])
    with style.style():
        figure = Figure(figsize=(style.PAGE, 5.6), layout="constrained")
        grid = figure.add_gridspec(3, 3, width_ratios=(1, 1, 1.35))
        name_reading(figure, effects)
        shared: Axes | None = None
        labels = f"Direct effect\nΔ unembed ({effects.unit})", f"Lost\n−Δ ablate ({effects.unit})"
        for row, (letter, (values, dim), label) in enumerate(zip("ab", measured, labels, strict=True)):
            left = shared = figure.add_subplot(grid[row, 0], sharey=shared)
            right = figure.add_subplot(grid[row, 1], sharey=left)
            for axes, kind in zip((left, right), KINDS, strict=True):
                _over_depth(axes, of_kind(values, dim, kind), dim, kind, top, limits)
                panel_letter(axes, letter if kind == "attn" else "", NAME[kind])
            # If attention wasn't ablated, its panel has no axis for numbers.
            (left if left.axison else right).set_ylabel(label)
            right.tick_params(labelleft=not left.axison)
        _against(figure.add_subplot(grid[0, 2]), direct, lost, top, effects.unit)
        d, e = (figure.add_subplot(grid[row, 2]) for row in (1, 2))
        if can_regress(effects):
            agrees = agreement(effects, bootstrap)
            _agreement(d, agrees["correlation"], top, "Correlation of both")
            _agreement(e, agrees["share"], top, "Share of prompts with\nΔ unembed > −Δ ablate")
        else:
            absent(d, NO_REGRESSION)
            absent(e, "")
        panel_letter(d, "d")
        panel_letter(e, "e" if can_regress(effects) else "")
        room = figure.add_subplot(grid[2, :2])
        room.set_axis_off()
        room.legend(handles=_legend(), loc="center", ncols=2)
    return figure


def _shared_limits(values: Sequence[np.ndarray]) -> Limits:
    """Return limits for all `values` [prompt, sublayer]; every mean lies within."""
    means = [mean for each in values for mean in each.mean(0)]
    return informative(np.concatenate(values, axis=1), [0.0, *means])


def _over_depth(axes: Axes, values: xr.DataArray, dim: str, kind: SublayerKind, depth: int, limits: Limits) -> None:
    """Draw every prompt's values over blocks and their mean; `dim` holds the sublayers."""
    if not values.sizes[dim]:
        absent(axes, "not ablated\nin this run")
        return
    x, lines = block_numbers(values[dim]), values.transpose("prompt", dim).values
    zero_line(axes)
    faint_lines(axes, x, lines, style.GREY)
    axes.plot(x, values.mean("prompt", skipna=False), color=COLOUR[kind], marker=MARKER[kind], markersize=2, zorder=3)
    block_axis(axes, depth)
    axes.set_ylim(limits)
    mark_beyond(axes, x, lines, limits, style.DIM)


def _against(axes: Axes, direct: xr.DataArray, lost: xr.DataArray, depth: int, unit: str) -> None:
    """Draw a point for each prompt and sublayer, and the line on which both measures are equal."""
    scale = depth_scale(depth)
    for kind in KINDS:
        x, y = of_kind(direct, "ablated", kind), of_kind(lost, "ablated", kind)
        if x.size:
            cloud(axes, x, y, scale, MARKER[kind])
    axes.axline((0, 0), slope=1, color=style.BLACK, linewidth=0.7, linestyle=":", zorder=3)
    x_limits, y_limits = informative(direct.values), informative(lost.values)
    clip_points(axes, direct.values.ravel(), lost.values.ravel(), x_limits, y_limits)
    axes.set_xlabel(f"Direct effect ({unit})")
    axes.set_ylabel(f"Lost ({unit})")
    depth_bar(axes, scale)
    panel_letter(axes, "c")


def _agreement(axes: Axes, agrees: xr.DataArray, depth: int, label: str) -> None:
    """Draw a measure of agreement [bound, ablated] over depth, with its intervals."""
    zero_line(axes)
    for kind in KINDS:
        selected = of_kind(agrees, "ablated", kind)
        if selected.sizes["ablated"]:
            x = block_numbers(selected["ablated"])
            band(axes, x, selected, COLOUR[kind])
            axes.plot(x, selected.sel(bound="estimate"), color=COLOUR[kind], marker=MARKER[kind], markersize=2)
    low = float(agrees.min())
    axes.set_ylim((-0.05 if np.isnan(low) else min(0.0, low) - 0.05), 1.05)
    block_axis(axes, depth, "Block of the ablated sublayer")
    axes.set_ylabel(label)


def _legend() -> list[Line2D]:
    """Return the legend entries of all panels."""
    return [
        *(Line2D([], [], color=COLOUR[kind], marker=MARKER[kind], label=NAME[kind]) for kind in KINDS),
        Line2D([], [], color=style.GREY, linewidth=0.5, label="each prompt (a, b)"),
        Line2D([], [], color=style.BLACK, linewidth=0.7, linestyle=":", label="both equal (c)"),
    ]
