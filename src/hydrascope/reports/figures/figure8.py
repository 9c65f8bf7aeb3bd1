"""Figure 8: the response to an ablation, split into attention and MLPs."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from hydrascope.measures import (
    BOUNDS,
    Bootstrap,
    Effects,
    SublayerKind,
    best_sublayer,
    block_numbers,
    compensable,
    compensation,
    depth,
    direct_effect,
    of_kind,
    regression,
    takes_effects,
)
from hydrascope.reports.figures import style
from hydrascope.reports.figures.limits import clip_points, draw_slopes, informative, slope_limits
from hydrascope.reports.figures.panels import (
    COLOUR,
    NAME,
    ablated_blocks,
    ablated_kinds,
    absent,
    band,
    block_axis,
    can_regress,
    name_reading,
    panel_letter,
    point_size,
    zero_line,
)

#: The two shares of the response: their names in `compensation`, and the kind of sublayer that responds.
SHARES: tuple[tuple[str, SublayerKind], ...] = (("attention", "attn"), ("mlp", "mlp"))
#: The ablated sublayers of either kind that have a panel.
_PANELS = 4


@takes_effects
def figure8(effects: Effects, bootstrap: Bootstrap | None = None) -> Figure:
    """Draw ΔDE of downstream attention and MLPs against the ablated direct effect (Figure 8).

    Panel (a) shows ablated sublayers, a row for either kind: the one with the highest R² (as in Figure 7b), and others
    evenly spaced in depth; a point per prompt, with regression lines. Panels (b) and (c) show slope and R² of all
    ablated sublayers, with intervals. Sublayers with nothing downstream are left out.

        >>> figure = figure8(effects, hs.measures.Bootstrap(resamples=50))

    Args:
        effects: the effects of a run (`hydrascope.measures.per_prompt`).
        bootstrap: the resampling that gives the intervals.

    Raises:
        HydrascopeError: no sublayer was ablated.
    """
    effects = ablated_blocks(effects)
    points = effects.isel(ablated=compensable(effects).values)
    shown = ablated_kinds(points)
    with style.style():
        figure = Figure(figsize=(style.PAGE, 2.7 + 1.75 * max(len(shown), 1)), layout="constrained")
        name_reading(figure, effects)
        if not shown or not can_regress(effects):
            nothing = "Nothing is downstream of the sublayers that this run ablated."
            few = "The response is regressed over prompts: this needs 3 prompts or more."
            absent(figure.subplots(), few if shown else nothing)
            return figure
        above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.55 * len(shown), 2.5))[:, 0]
        chosen = {kind: of_kind(points, "ablated", kind) for kind in shown}
        fits = {kind: _fits(chosen[kind], bootstrap) for kind in shown}
        _single_sublayers(above, effects, chosen, fits)
        _all_sublayers(below, fits, depth(effects))
    return figure


def _fits(chosen: Effects, bootstrap: Bootstrap | None) -> dict[str, xr.Dataset]:
    """Return the regression of either share of the response, by share."""
    direct, response = direct_effect(chosen), compensation(chosen)
    return {name: regression(direct, response[name], bootstrap) for name, _ in SHARES}


def _single_sublayers(
    figure: SubFigure,
    effects: Effects,
    chosen: dict[SublayerKind, Effects],
    fits: dict[SublayerKind, dict[str, xr.Dataset]],
) -> None:
    """Draw panel (a): a row of ablated sublayers for either kind."""
    columns = max(min(each.sizes["ablated"], _PANELS) for each in chosen.values())
    grid = figure.subplots(len(chosen), columns, sharex="row", sharey="row", squeeze=False)
    for row, (kind, each) in zip(grid, chosen.items(), strict=True):
        direct, response = direct_effect(each), compensation(each)
        labels = [str(label) for label in each["ablated"].values]
        best = best_sublayer(effects, kind)
        x_limits = informative(direct.transpose("prompt", "ablated").values)
        both = [response[name].transpose("prompt", "ablated").values for name, _ in SHARES]
        y_limits = informative(np.concatenate(both, axis=1))
        indices = _spread(len(labels), labels.index(best) if best in labels else None)
        for axes, i in zip(row, indices, strict=False):
            _one_sublayer(axes, direct.isel(ablated=i), response.isel(ablated=i), fits[kind], i)
            clip_points(
                axes,
                np.concatenate([direct.isel(ablated=i).values] * len(SHARES)),
                np.concatenate([response[name].isel(ablated=i).values for name, _ in SHARES]),
                x_limits,
                y_limits,
            )
            axes.set_title(f"{labels[i]} ablated{', highest R²' if labels[i] == best else ''}")
        for axes in row[len(indices) :]:
            axes.set_axis_off()
    panel_letter(grid[0, 0], "a", grid[0, 0].get_title())
    figure.supxlabel(f"Direct effect of the ablated sublayer ({effects.unit})", fontsize=8)
    figure.supylabel(f"Change in direct effect, ΔDE ({effects.unit})", fontsize=8)
    figure.legend(handles=_legend(), loc="outside upper center", ncols=2)


def _spread(count: int, best: int | None) -> list[int]:
    """Return indices evenly spaced, the nearest one replaced by the best."""
    chosen = np.unique(np.linspace(0, count - 1, min(count, _PANELS)).round().astype(int))
    if best is not None:
        chosen[np.argmin(abs(chosen - best))] = best
    return [int(index) for index in chosen]


def _legend() -> list[Line2D]:
    names: tuple[tuple[SublayerKind, str], ...] = (("attn", "attention sublayers"), ("mlp", "MLPs"))
    return [Line2D([], [], color=COLOUR[kind], marker="o", label=f"downstream {name}") for kind, name in names]


def _one_sublayer(axes: Axes, direct: xr.DataArray, response: xr.Dataset, fits: dict[str, xr.Dataset], i: int) -> None:
    """Draw one ablated sublayer: points and a line for either share of the response."""
    zero_line(axes)
    x = np.concatenate([direct.values] * len(SHARES))
    y = np.concatenate([response[name].values for name, _ in SHARES])
    colours = np.repeat([COLOUR[kind] for _, kind in SHARES], direct.size)
    # Points are drawn in random order, so that neither share covers the other.
    order = np.random.default_rng(0).permutation(x.size)
    axes.scatter(x[order], y[order], c=colours[order], s=point_size(x.size), alpha=0.45, linewidths=0, rasterized=True)
    ends = np.array([x.min(), x.max()])
    for name, kind in SHARES:
        line = fits[name].isel(ablated=i).sel(bound="estimate")
        heights = float(line["intercept"]) + float(line["slope"]) * ends
        axes.plot(ends, heights, color="white", linewidth=2)
        axes.plot(ends, heights, color=COLOUR[kind], linewidth=1.1)


def _all_sublayers(figure: SubFigure, fits: dict[SublayerKind, dict[str, xr.Dataset]], depth: int) -> None:
    """Draw panels (b) and (c): slope and R² over depth, a column for each ablated kind."""
    grid = figure.subplots(2, len(fits), sharex=True, sharey="row", squeeze=False, height_ratios=(1.3, 1))
    every = [share["slope"].sel(bound="estimate").values for each in fits.values() for share in each.values()]
    limits = slope_limits(*every)
    for (slope, explained), (kind, shares) in zip(grid.T, fits.items(), strict=True):
        blocks = block_numbers(shares["mlp"]["ablated"])
        for axes in (slope, explained):
            zero_line(axes)
            block_axis(axes, depth, f"Block of the ablated {'attention sublayer' if kind == 'attn' else 'MLP'}")
        slope.set_xlabel("")
        for share, responding in SHARES:
            fit, colour = shares[share], COLOUR[responding]
            draw_slopes(slope, blocks, fit["slope"].sel(bound=list(BOUNDS)).values, limits, colour)
            band(explained, blocks, fit["r2"], colour)
            explained.plot(blocks, fit["r2"].sel(bound="estimate"), color=colour, marker="o", markersize=2)
        panel_letter(slope, "b" if slope is grid[0, 0] else "", f"{NAME[kind]} ablated")
    grid[1, 0].set_ylim(-0.03, 1.03)
    grid[0, 0].set_ylabel("Slope of ΔDE")
    grid[1, 0].set_ylabel("R²")
    panel_letter(grid[1, 0], "c")
    figure.align_ylabels()
