"""Figures 1 and 3: one prompt, every layer's direct effect before and after the ablation of one."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D

from hydrascope.components import Component, Kind
from hydrascope.errors import HydrascopeError
from hydrascope.figures import style
from hydrascope.figures.panels import COLOUR, KINDS, NAME, faint_lines, layer_axis, printable, zero_line
from hydrascope.figures.protocol import protocol
from hydrascope.measures import direct_effect, kinds, layers, of_kind

#: How the ablated layer is marked.
CUT: dict[str, Any] = {"color": style.BLACK, "linewidth": 0.8, "linestyle": "--"}


def examples(
    results: xr.Dataset, prompt: int | None = None, ablated: str | None = None
) -> tuple[tuple[int, str], tuple[int, str]]:
    """The prompt and the ablated component that Figures 1 and 3 show.

    What is named is kept in both. What is left open is chosen by the largest direct effect, among attention
    layers where any was ablated; Figure 3 then takes another prompt than Figure 1, or, where the prompt is
    named or the only one, another layer.

    Raises:
        HydrascopeError: there is no such prompt, or no such component was ablated.
    """
    prompts, labels = results.sizes["prompt"], [str(label) for label in results["ablated"].values]
    if prompt is not None and not 0 <= prompt < prompts:
        raise HydrascopeError(f"there is no prompt {prompt}: this result holds prompts 0 to {prompts - 1}")
    if ablated is not None and ablated not in labels:
        raise HydrascopeError(f"{ablated} isn't among the components that this run ablated: {_some(labels)}")
    kind: Kind = "attn" if "attn" in kinds(results["ablated"]) else "mlp"
    direct = direct_effect(results)
    direct = direct.sel(ablated=[ablated]) if ablated else of_kind(direct, "ablated", kind)
    chosen = direct.values if prompt is None else direct.values[[prompt]]
    # NaN would be taken for the largest.
    chosen = np.where(np.isnan(chosen), -np.inf, chosen)
    row, column = np.unravel_index(chosen.argmax(), chosen.shape)
    left = chosen.copy()
    if len(chosen) > 1:
        left[row] = -np.inf
    elif chosen.shape[1] > 1:
        left[:, column] = -np.inf
    other_row, other_column = np.unravel_index(left.argmax(), left.shape)

    def named(row: np.intp, column: np.intp) -> tuple[int, str]:
        return int(row) if prompt is None else prompt, str(direct["ablated"].values[column])

    return named(row, column), named(other_row, other_column)


def _some(labels: list[str]) -> str:
    return ", ".join(labels) if len(labels) <= 6 else f"{labels[0]}, {labels[1]}, … {labels[-1]}"


def figure1(results: xr.Dataset, prompt: int | None = None, ablated: str | None = None) -> Figure:
    """The protocol, and one prompt's direct effects before and after an ablation (the paper's Figure 1).

    Defaults and errors as in `examples`, of which this is the first.
    """
    prompt, ablated = examples(results, prompt, ablated)[0]
    with style.style():
        figure = Figure(figsize=(style.PAGE, 3.9), layout="constrained")
        above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1, 2.5))[:, 0]
        protocol(above.subplots(), results, ablated)
        attention, mlp = below.subplots(1, 2, sharex=True)
        _both_kinds(results, prompt, ablated, attention, mlp)
        mlp.set_ylabel("")
        below.suptitle(_title(results, prompt, 84), fontsize=8)
        _legend(below, results, ablated)
    return figure


def figure3(results: xr.Dataset, prompt: int | None = None, ablated: str | None = None) -> Figure:
    """A second example, as large as the page (the paper's Figure 3).

    Defaults and errors as in `examples`, of which this is the second.
    """
    prompt, ablated = examples(results, prompt, ablated)[1]
    with style.style():
        figure = Figure(figsize=(style.PAGE, 4.6), layout="constrained")
        attention, mlp = figure.subplots(2, 1, sharex=True)
        _both_kinds(results, prompt, ablated, attention, mlp)
        attention.set_xlabel("")
        figure.suptitle(_title(results, prompt, 88), fontsize=8)
        _legend(figure, results, ablated)
    return figure


def _title(results: xr.Dataset, prompt: int, limit: int) -> str:
    """The prompt, and the token whose logit is read."""
    text, target = (str(results[name].values[prompt]) for name in ("text", "target_text"))
    return f"Prompt {prompt}: {printable(text, limit)}  ▸  “{printable(target, 24)}”"


def _both_kinds(results: xr.Dataset, prompt: int, ablated: str, attention: Axes, mlp: Axes) -> None:
    """Direct effects of attention layers in one panel, of MLPs in the other."""
    one = results[["unembed", "unembed_ablated"]].isel(prompt=prompt).sel(ablated=ablated).load()
    depth = 1 + max(layers(results["component"]))
    size = float(np.clip(60 / depth, 1, 3.5))
    for axes, kind in zip((attention, mlp), KINDS, strict=True):
        part = of_kind(one, "component", kind)
        x = layers(part["component"])
        patches = part["unembed_ablated"].transpose("patch", "component").values
        zero_line(axes)
        axes.axvline(Component.parse(ablated).layer, **CUT)
        if len(patches) > 1:
            faint_lines(axes, x, patches, COLOUR[kind], alpha=0.3)
        axes.plot(x, part["unembed"], color=style.BLACK, marker="o", markersize=size, zorder=4)
        axes.plot(x, patches.mean(0), color=COLOUR[kind], marker="s", markersize=size, zorder=5)
        layer_axis(axes, depth)
        axes.set_title(f"{NAME[kind]} layers")
        axes.set_ylabel("Direct effect on the\ntarget’s logit (logits)")


def _legend(figure: Figure | SubFigure, results: xr.Dataset, ablated: str) -> None:
    """One legend for both panels: what is drawn in either kind's colour is shown in both."""
    patches = results.sizes["patch"]
    faint, mean = (
        tuple(Line2D([], [], color=COLOUR[kind], **look) for kind in KINDS)
        for look in ({"linewidth": 0.6, "alpha": 0.6}, {"marker": "s"})
    )
    entries: dict[str, Any] = {
        "intact": Line2D([], [], color=style.BLACK, marker="o"),
        f"{ablated} ablated" + (", mean of patches" if patches > 1 else ""): mean,
        f"each of {patches} patches": faint,
        "the ablated layer": Line2D([], [], **CUT),
    }
    if patches == 1:
        del entries["each of 1 patches"]
    handler = {tuple: HandlerTuple(ndivide=None, pad=0.3)}
    figure.legend(
        list(entries.values()),
        list(entries),
        handler_map=handler,
        loc="outside lower center",
        ncols=4,
        handlelength=3,
    )
