"""Figure 8: the response to an ablation, split into attention and MLPs."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from hydrascope.measures import (
    Bootstrap,
    Effects,
    SublayerKind,
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
from hydrascope.reports.figures.panels import (
    COLOUR,
    ablated_blocks,
    absent,
    band,
    block_axis,
    limit_slopes,
    main_kind,
    name_reading,
    panel_letter,
    point_size,
    zero_line,
)

#: The two shares of the response: their names in `compensation`, and the kind of sublayer that responds.
SHARES: tuple[tuple[str, SublayerKind], ...] = (("attention", "attn"), ("mlp", "mlp"))
_PANELS = 8


@takes_effects
def figure8(effects: Effects, bootstrap: Bootstrap | None = None) -> Figure:
    """Draw ΔDE of downstream attention and MLPs against the ablated direct effect (Figure 8).

    Panel (a) shows ablated sublayers evenly spaced in depth, a point per prompt, with regression lines. Panels (b) and
    (c) show slope and R² of all ablated sublayers, with intervals. The ablated sublayers are attention, or MLPs if no
    attention was ablated. Sublayers with nothing downstream are left out.

        >>> figure = figure8(effects, hs.measures.Bootstrap(resamples=50))

    Args:
        effects: the effects of a run (`hydrascope.measures.per_prompt`).
        bootstrap: the resampling that gives the intervals.

    Raises:
        HydrascopeError: no sublayer was ablated.
    """
    effects = ablated_blocks(effects)
    kind = main_kind(effects)
    chosen = of_kind(effects.isel(ablated=compensable(effects).values), "ablated", kind)
    with style.style():
        figure = Figure(figsize=(style.PAGE, 5.6), layout="constrained")
        name_reading(figure, effects)
        if not chosen.sizes["ablated"]:
            absent(figure.subplots(), "Nothing is downstream of the sublayers that this run ablated.")
            return figure
        direct, response = direct_effect(chosen), compensation(chosen)
        fits = {name: regression(direct, response[name], bootstrap) for name, _ in SHARES}
        count = chosen.sizes["ablated"]
        selection = np.unique(np.linspace(0, count - 1, min(count, _PANELS)).round().astype(int))
        columns = len(selection) if len(selection) <= 5 else -(-len(selection) // 2)
        rows = -(-len(selection) // columns)
        above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.05 * rows, 1.15))[:, 0]
        grid = above.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axes, i in zip(grid.flat, selection, strict=False):
            _one_sublayer(axes, direct.isel(ablated=i), response.isel(ablated=i), fits, int(i))
        for i in range(len(selection), grid.size):
            grid.flat[i].set_axis_off()
            # The panel above an empty cell is the lowest of its column.
            grid.flat[i - columns].tick_params(labelbottom=True)
        panel_letter(grid[0, 0], "a", grid[0, 0].get_title())
        above.supxlabel(f"Direct effect of the ablated sublayer ({effects.unit})", fontsize=8)
        above.supylabel(f"Change in direct effect, ΔDE ({effects.unit})", fontsize=8)
        above.legend(handles=_legend(), loc="outside upper center", ncols=2)
        slope, explained = below.subplots(1, 2)
        _over_depth(slope, explained, fits, kind, depth(effects))
    return figure


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
    axes.set_title(f"{direct['ablated'].item()} ablated")


def _over_depth(slope: Axes, explained: Axes, fits: dict[str, xr.Dataset], kind: SublayerKind, depth: int) -> None:
    """Draw slope and R² of either share of the response over depth."""
    x = block_numbers(fits["mlp"]["ablated"])
    for axes, name, label in ((slope, "slope", "Slope of ΔDE on direct effect"), (explained, "r2", "R²")):
        zero_line(axes)
        for share, colour in ((share, COLOUR[responding]) for share, responding in SHARES):
            bounds = fits[share][name]
            band(axes, x, bounds, colour)
            axes.plot(x, bounds.sel(bound="estimate"), color=colour, marker="o", markersize=2)
        block_axis(axes, depth, f"Block of the ablated {'attention sublayer' if kind == 'attn' else 'MLP'}")
        axes.set_ylabel(label)
    estimates = {COLOUR[kind]: fits[share]["slope"].sel(bound="estimate").values for share, kind in SHARES}
    limit_slopes(slope, x, estimates)
    explained.set_ylim(-0.03, 1.03)
    panel_letter(slope, "b")
    panel_letter(explained, "c")
