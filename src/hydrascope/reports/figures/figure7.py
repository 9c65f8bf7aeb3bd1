"""Figure 7: compensatory effects against direct effects, on all prompts and sublayers."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from hydrascope.measures import (
    BOUNDS,
    Bootstrap,
    Effects,
    SublayerKind,
    best_sublayer,
    best_sublayer_held_out,
    block_numbers,
    compensable,
    compensation,
    compensation_regression,
    depth,
    direct_effect,
    kinds,
    of_kind,
    takes_effects,
)
from hydrascope.reports.figures import style
from hydrascope.reports.figures.limits import clip_points, draw_slopes, informative, slope_limits
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
    name_reading,
    panel_letter,
    point_size,
    zero_line,
)
from hydrascope.reports.summary.interval import Interval, format_interval, number


@takes_effects
def figure7(effects: Effects, bootstrap: Bootstrap | None = None) -> Figure:
    """Draw compensatory effects against direct effects (the paper's Figure 7).

    Panels (a) and (c) show attention and MLPs, coloured by depth, with a regression line for each sublayer whose slope
    is surely not 0. Panel (b) shows the sublayer of either kind with the highest R², and the R² and slope of the one
    chosen on other prompts. Panel (d) shows slope and R² of both kinds over depth, with intervals. Sublayers with
    nothing downstream are left out. Axes are clipped where few points would flatten all others; triangles and numbers
    stand for what is beyond. A regression needs three prompts.

        >>> figure = figure7(effects, hs.measures.Bootstrap(resamples=50))

    Args:
        effects: the effects of a run (`hydrascope.measures.per_prompt`).
        bootstrap: the resampling that gives the intervals.

    Raises:
        HydrascopeError: no sublayer was ablated.
    """
    effects = ablated_blocks(effects)
    points = effects.isel(ablated=compensable(effects).values)
    direct, response = direct_effect(points), compensation(points)["compensation"]
    fit = compensation_regression(effects, bootstrap) if can_regress(effects) else None
    with style.style():
        figure = Figure(figsize=(style.PAGE, 5.8), layout="constrained")
        name_reading(figure, effects)
        left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1.05, 1))[0]
        _all_sublayers(left, direct, response, fit, depth(effects), effects.unit)
        above, below = right.subfigures(2, 1, squeeze=False, height_ratios=(1, 1.05))[:, 0]
        _best(above.subplots(), direct, response, effects, fit, bootstrap)
        _over_depth(below, fit, None if fit is None else best_sublayer(effects, "either"), depth(effects))
    return figure


def _all_sublayers(
    figure: SubFigure, direct: xr.DataArray, response: xr.DataArray, fit: xr.Dataset | None, depth: int, unit: str
) -> None:
    """Draw panels (a) and (c): points and regression lines of all sublayers."""
    panels = figure.subplots(2, 1)
    scale = depth_scale(depth)
    for axes, letter, kind in zip(panels, "ac", KINDS, strict=True):
        _one_kind(axes, direct, response, fit, kind, scale, unit)
        panel_letter(axes, letter, f"{NAME[kind]} sublayers")
    depth_bar(panels, scale)


def _one_kind(
    axes: Axes,
    direct: xr.DataArray,
    response: xr.DataArray,
    fit: xr.Dataset | None,
    kind: SublayerKind,
    scale: ScalarMappable,
    unit: str,
) -> None:
    x, y = of_kind(direct, "ablated", kind), of_kind(response, "ablated", kind)
    if not x.size:
        absent(axes, "no such sublayer was ablated\nthat has anything downstream")
        return
    zero_line(axes)
    cloud(axes, x, y, scale)
    lines = 0
    for name, block in zip(x["ablated"].values, block_numbers(x["ablated"]), strict=True):
        if fit is None or not _surely_not_0(fit["slope"].sel(ablated=name)):
            continue
        lines += 1
        line, one = fit.sel(ablated=name, bound="estimate"), x.sel(ablated=name)
        ends = np.array([float(one.min()), float(one.max())])
        heights = float(line["intercept"]) + float(line["slope"]) * ends
        axes.plot(ends, heights, color="white", linewidth=1.8, zorder=3)
        axes.plot(ends, heights, color=scale.to_rgba(np.array(block)), linewidth=0.9, zorder=3)
    full_repair(axes)
    at_x, at_y = (each.transpose("prompt", "ablated").values for each in (x, y))
    clip_points(axes, at_x.ravel(), at_y.ravel(), informative(at_x), informative(at_y))
    surely = [Line2D([], [], color=style.DIM, linewidth=0.9, label="slope surely not 0")] if lines else []
    legend = axes.legend(handles=[*surely, *axes.get_legend_handles_labels()[0]], loc="lower right", frameon=True)
    legend.get_frame().set(edgecolor="none", alpha=0.8)
    axes.set_xlabel(f"Direct effect ({unit})")
    axes.set_ylabel(f"Compensatory effect ({unit})")


def _surely_not_0(slope: xr.DataArray) -> bool:
    """Whether the interval of a slope [bound] excludes 0."""
    return bool(slope.sel(bound="low") > 0 or slope.sel(bound="high") < 0)


def full_repair(axes: Axes) -> None:
    """Draw the line of full compensation, CE = DE; it doesn't widen the axes."""
    axes.axline((0, 0), slope=1, color=style.BLACK, linewidth=0.7, linestyle=":", label="full repair", zorder=3)


def _best(
    axes: Axes,
    direct: xr.DataArray,
    response: xr.DataArray,
    effects: Effects,
    fit: xr.Dataset | None,
    bootstrap: Bootstrap | None,
) -> None:
    """Draw panel (b): the best sublayer; the legend also gives the held-out line."""
    ablated = None if fit is None else best_sublayer(effects, "either")
    panel_letter(axes, "b", f"{ablated}: highest R²" if ablated else "")
    if fit is None:
        absent(axes, NO_REGRESSION)
        return
    if ablated is None:
        absent(axes, "no sublayer removes enough and is\ncompensated for where it does")
        return
    x, y = direct.sel(ablated=ablated).values, response.sel(ablated=ablated).values
    line = fit.sel(ablated=ablated)
    slope, intercept = (float(line[name].sel(bound="estimate")) for name in ("slope", "intercept"))
    kind = kinds(direct["ablated"].sel(ablated=[ablated]))[0]
    zero_line(axes)
    colour = COLOUR[kind]  # type: ignore[index]
    axes.scatter(x, y, s=1.5 * point_size(x.size), color=colour, alpha=0.6, linewidths=0, rasterized=True)
    ends = np.array([x.min(), x.max()])
    axes.plot(ends, intercept + slope * ends, color=style.BLACK, label=_equation(line), zorder=4)
    held = best_sublayer_held_out(effects, "either", bootstrap)
    if held is not None:
        choice, chosen = held
        name = "" if choice.named == ablated else f": {choice.named}"
        axes.plot([], [], linestyle="", label=f"chosen on other prompts{name}\n{_equation(chosen)}")
    full_repair(axes)
    clip_points(axes, x, y, informative(x[:, None], ()), informative(y[:, None]))
    axes.set_xlabel(f"Direct effect ({effects.unit})")
    axes.set_ylabel(f"Compensatory effect ({effects.unit})")
    axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.24), ncols=1, handlelength=1.4)


def _equation(line: xr.Dataset) -> str:
    """Format a regression's slope, with its interval if there is one, and R²."""
    slope, explained = format_interval(Interval.of(line["slope"]), 2), float(line["r2"].sel(bound="estimate"))
    return f"slope {slope}, R² = {number(explained, 2)}"


def _over_depth(figure: SubFigure, fit: xr.Dataset | None, best: str | None, depth: int) -> None:
    """Draw panel (d): slope and R² of either kind over the depth of the ablated sublayer."""
    slope, explained = figure.subplots(2, 1, sharex=True, height_ratios=(1.3, 1))
    panel_letter(slope, "d")
    if fit is None:
        absent(slope, NO_REGRESSION)
        absent(explained, "")
        return
    by_kind = {COLOUR[kind]: of_kind(fit, "ablated", kind) for kind in KINDS}
    by_kind = {colour: each for colour, each in by_kind.items() if each.sizes["ablated"]}
    blocks = {colour: block_numbers(each["ablated"]) for colour, each in by_kind.items()}
    for axes in (slope, explained):
        zero_line(axes)
        axes.axhline(1, color=style.GREY, linewidth=0.5, linestyle=":", zorder=0)
        if best is not None:
            axes.axvline(int(fit["ablated_block"].sel(ablated=best)), color=style.PURPLE, linewidth=1.2, zorder=0)
        block_axis(axes, depth, "Block of the ablated sublayer")
    bounds = {colour: each["slope"].sel(bound=list(BOUNDS)).values for colour, each in by_kind.items()}
    limits = slope_limits(*(each[0] for each in bounds.values()))
    for colour, each in by_kind.items():
        draw_slopes(slope, blocks[colour], bounds[colour], limits, colour)
        band(explained, blocks[colour], each["r2"], colour)
        explained.plot(blocks[colour], each["r2"].sel(bound="estimate"), color=colour, marker="o", markersize=2)
    explained.set_ylim(-0.03, 1.03)
    slope.set_xlabel("")
    slope.set_ylabel("Slope")
    explained.set_ylabel("R²")
    figure.align_ylabels()
    names = [Line2D([], [], color=COLOUR[kind], marker="o", label=NAME[kind]) for kind in KINDS]
    line = [Line2D([], [], color=style.PURPLE, label=f"{best}: highest R²")] if best else []
    figure.legend(handles=[*names, *line], loc="outside lower center", ncols=3, columnspacing=1, handlelength=1.8)
