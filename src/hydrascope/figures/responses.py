"""Who answers to what: the mean response of every layer to every ablation, and where it is surely not 0."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from hydrascope.figures import style
from hydrascope.figures.panels import name_reading, panel_letter, unit
from hydrascope.measures import Bootstrap, change, depth, kinds, layers, per_prompt, simultaneous, units

#: Blue below 0, red above: read without colour vision, too.
_COLOURS = "RdBu_r"
#: The colours end at this quantile of |response|, so that one large response doesn't turn all others white.
_QUANTILE = 0.99
#: More rows than this are labelled by the ends of their kind alone.
_LABELLED = 12
_GREY = "#D9D9D9"


def figure_responses(results: xr.Dataset, bootstrap: Bootstrap | None = None) -> Figure:
    """Ablated part × responding layer: (a) the mean response, ΔDE; (b) the same where it is surely not 0.

    Surely: with bounds that hold for all responses of the panel at once. A layer that isn't downstream of what is
    ablated, and so can't respond, is grey.

        figure_responses(results).savefig("responses.png")
    """
    effects = per_prompt(results)
    ordered = _in_order(effects)
    responses = change(ordered).where(ordered["downstream"])
    mean = responses.mean("prompt", skipna=False).values
    bounds = simultaneous(
        lambda means: means,
        responses.fillna(0).rename("response").to_dataset().stack(pair=("ablated", "component"), create_index=False),
        bootstrap or Bootstrap(),
        "pair",
    )["response"]
    low, high = (bounds.sel(bound=bound).values.reshape(mean.shape) for bound in ("low", "high"))
    sure = np.where(np.isnan(mean) | (low > 0) | (high < 0), mean, 0.0)
    known = abs(mean[np.isfinite(mean)])
    most = float(np.quantile(known, _QUANTILE)) if known.size else 0.0
    most = most or float(known.max(initial=0)) or 1.0
    with style.style():
        rows = len(mean)
        figure = Figure(figsize=(style.PAGE, float(np.clip(1.6 + 0.06 * rows, 3.0, 7.5))), layout="constrained")
        name_reading(figure, effects)
        left, right = figure.subplots(1, 2, sharey=True)
        images = [_matrix(axes, values, most) for axes, values in ((left, mean), (right, sure))]
        for axes in (left, right):
            _label(axes, ordered)
        _label_rows(left, ordered)
        panel_letter(left, "a", "Mean response")
        panel_letter(right, "b", "Surely not 0")
        label = f"Mean change of direct effect, ΔDE ({unit(effects)})"
        figure.colorbar(images[0], ax=(left, right), label=label, aspect=30, pad=0.02, extend="both")
    return figure


def _in_order(effects: xr.Dataset) -> xr.Dataset:
    """Attention before MLPs, then heads, neurons and joint ablations; each from the bottom of the network up."""

    def order(dim: str) -> list[int]:
        rank = {kind: i for i, kind in enumerate(("attn", "mlp", "head", "neuron", "joint"))}
        keys = list(
            zip(map(rank.__getitem__, kinds(effects[dim])), layers(effects[dim]), units(effects[dim]), strict=True)
        )
        return sorted(range(len(keys)), key=keys.__getitem__)

    return effects.isel(ablated=order("ablated"), component=order("component"))


def _matrix(axes: Axes, values: np.ndarray, most: float) -> AxesImage:
    axes.set_facecolor(_GREY)
    for side in axes.spines.values():
        side.set_visible(False)
    return axes.imshow(
        values, cmap=_COLOURS, vmin=-most, vmax=most, aspect="auto", interpolation="none", origin="lower"
    )


def _label(axes: Axes, effects: xr.Dataset) -> None:
    """Responding layers along the horizontal axis: attention, then MLPs."""
    top = depth(effects)
    step = max(1, -(-top // 6))
    places = [*range(0, top, step)]
    axes.set_xticks([*places, *(top + place for place in places)], [*map(str, places), *map(str, places)])
    axes.axvline(top - 0.5, color=style.BLACK, linewidth=0.6)
    axes.set_xlabel("Responding layer: attention | MLP")


def _label_rows(axes: Axes, effects: xr.Dataset) -> None:
    """Ablated parts along the vertical axis: each where there is room, else some of each kind."""
    names, found = list(map(str, effects["ablated"].values)), kinds(effects["ablated"])
    ticks: list[int] = []
    for kind in dict.fromkeys(found):
        first, count = found.index(kind), found.count(kind)
        ticks += [first + place for place in range(0, count, max(1, -(-count // _LABELLED)))]
        if first:
            for each in axes.figure.axes[:2]:
                each.axhline(first - 0.5, color=style.BLACK, linewidth=0.6)
    axes.set_yticks(ticks, [names[tick] for tick in ticks])
    axes.set_ylabel("Ablated")
