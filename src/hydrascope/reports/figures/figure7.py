"""Figure 7: compensatory effects against direct effects, on all prompts and sublayers."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from hydrascope.measures import (
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
    of_kind,
    takes_effects,
)
from hydrascope.reports.figures import style
from hydrascope.reports.figures.panels import (
    COLOUR,
    KINDS,
    NAME,
    ablated_blocks,
    absent,
    band,
    block_axis,
    cloud,
    depth_bar,
    depth_scale,
    limit_slopes,
    main_kind,
    name_reading,
    panel_letter,
    point_size,
    zero_line,
)


@takes_effects
def figure7(effects: Effects, bootstrap: Bootstrap | None = None) -> Figure:
    """Draw compensatory effects against direct effects (the paper's Figure 7).

    Panels (a) and (c) show attention and MLPs, coloured by depth, with a regression line for each sublayer. Panel (b)
    shows the sublayer with the highest R², and the R² and slope of the one chosen on other prompts. Panel (d) shows R²
    and slope over depth, with intervals. (b) and (d) show attention, or MLPs if no attention was ablated. Sublayers
    with nothing downstream are left out.

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
    fit = compensation_regression(effects, bootstrap)
    kind, top = main_kind(effects), depth(effects)
    with style.style():
        figure = Figure(figsize=(style.PAGE, 5.2), layout="constrained")
        name_reading(figure, effects)
        (a, b), (c, d) = figure.subplots(2, 2)
        scale = depth_scale(top)
        for axes, letter, each in zip((a, c), "ac", KINDS, strict=True):
            _all_sublayers(axes, direct, response, fit, each, scale, effects.unit)
            panel_letter(axes, letter, f"{NAME[each]} sublayers")
        best = best_sublayer(effects, kind)
        held = best_sublayer_held_out(effects, kind, bootstrap)
        _one_sublayer(b, direct, response, fit, best, held and held[1], kind, effects.unit)
        _over_depth(d, of_kind(fit, "ablated", kind), kind, best, top)
        panel_letter(b, "b", f"{best}: the sublayer with the highest R²" if best else "")
        panel_letter(d, "d")
    return figure


def _all_sublayers(
    axes: Axes,
    direct: xr.DataArray,
    response: xr.DataArray,
    fit: xr.Dataset,
    kind: SublayerKind,
    scale: ScalarMappable,
    unit: str,
) -> None:
    """Draw the points and the regression lines of all sublayers of one kind."""
    x, y = of_kind(direct, "ablated", kind), of_kind(response, "ablated", kind)
    if not x.size:
        absent(axes, "no such sublayer was ablated\nthat has anything downstream")
        return
    zero_line(axes)
    cloud(axes, x, y, scale)
    for name, block in zip(x["ablated"].values, block_numbers(x["ablated"]), strict=True):
        line, one = fit.sel(ablated=name, bound="estimate"), x.sel(ablated=name)
        ends = np.array([float(one.min()), float(one.max())])
        heights = float(line["intercept"]) + float(line["slope"]) * ends
        axes.plot(ends, heights, color="white", linewidth=1.8, zorder=3)
        axes.plot(ends, heights, color=scale.to_rgba(np.array(block)), linewidth=0.9, zorder=3)
    full_repair(axes)
    axes.legend(loc="lower right")
    axes.set_xlabel(f"Direct effect ({unit})")
    axes.set_ylabel(f"Compensatory effect ({unit})")
    depth_bar(axes, scale)


def full_repair(axes: Axes) -> None:
    """Draw the line of full compensation, CE = DE; it doesn't widen the axes."""
    axes.axline((0, 0), slope=1, color=style.BLACK, linewidth=0.7, linestyle=":", label="full repair", zorder=3)


def _one_sublayer(
    axes: Axes,
    direct: xr.DataArray,
    response: xr.DataArray,
    fit: xr.Dataset,
    ablated: str | None,
    held: xr.Dataset | None,
    kind: SublayerKind,
    unit: str,
) -> None:
    """Draw the points and the line of one sublayer; the legend also gives the held-out line."""
    if ablated is None:
        absent(axes, "no sublayer removes enough and is\ncompensated for where it does")
        return
    x, y = direct.sel(ablated=ablated).values, response.sel(ablated=ablated).values
    line = fit.sel(ablated=ablated)
    slope, intercept = (float(line[name].sel(bound="estimate")) for name in ("slope", "intercept"))
    zero_line(axes)
    axes.scatter(x, y, s=1.5 * point_size(x.size), color=COLOUR[kind], alpha=0.6, linewidths=0, rasterized=True)
    ends = np.array([x.min(), x.max()])
    axes.plot(ends, intercept + slope * ends, color=style.BLACK, label=_equation(line), zorder=4)
    if held is not None:
        axes.plot([], [], linestyle="", label=f"chosen on other prompts: {_equation(held)}")
    full_repair(axes)
    axes.set_xlabel(f"Direct effect ({unit})")
    axes.set_ylabel(f"Compensatory effect ({unit})")
    _legend_below(axes, columns=1)


def _equation(line: xr.Dataset) -> str:
    """Format a regression's slope, with its interval if there is one, and R²."""
    slope, low, high = (float(line["slope"].sel(bound=bound)) for bound in ("estimate", "low", "high"))
    interval = "" if np.isnan(low) else f" [{low:.2f}, {high:.2f}]"
    return f"slope {slope:.2f}{interval}, R² = {float(line['r2'].sel(bound='estimate')):.2f}".replace("-", "−")


def _over_depth(axes: Axes, fit: xr.Dataset, kind: SublayerKind, best: str | None, depth: int) -> None:
    """Draw slope and R² over the depth of the ablated sublayer."""
    x = block_numbers(fit["ablated"])
    zero_line(axes)
    axes.axhline(1, color=style.GREY, linewidth=0.5, linestyle=":", zorder=0)
    if best is not None:
        block = int(fit["ablated_block"].sel(ablated=best))
        axes.axvline(block, color=style.PURPLE, linewidth=1.2, label=f"{best}: highest R²", zorder=0)
    for name, colour, line, label in (("r2", COLOUR[kind], "-", "R²"), ("slope", style.BLACK, "--", "slope")):
        band(axes, x, fit[name], colour)
        values = fit[name].sel(bound="estimate").values
        axes.plot(x, values, color=colour, linestyle=line, marker="o", markersize=2, label=label)
    limit_slopes(axes, x, {style.BLACK: values}, shown=(0, 1))
    block_axis(axes, depth, f"Block of the ablated {'attention sublayer' if kind == 'attn' else 'MLP'}")
    axes.set_ylabel("Variance explained R², or slope")
    _legend_below(axes)


def _legend_below(axes: Axes, columns: int = 3) -> None:
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=columns, columnspacing=1, handlelength=1.8)
