"""The figures of docs/built-in-model.md, drawn from its data alone."""

from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from hydrascope.reports.figures.style import ATTENTION, DEPTH_CMAP, GREY, MLP, ORANGE, PAGE, style
from training.measure import checkpoints, curves_of, of_kind
from training.recipe import FIRST, SECOND, VARIANTS
from training.ship import finished


def _line(axes: Axes, curves: xr.Dataset, name: str, kind: str, shift: float = 0, **look: Any) -> None:
    """One quantity over depth with its intervals; `shift` keeps those of two models apart."""
    chosen = curves[name].sel(ablated=[a for a in curves["ablated"].values if str(a).startswith(kind)])
    depth = [int(str(a).split(".")[1]) + shift for a in chosen["ablated"].values]
    estimate, low, high = (chosen.sel(bound=bound).values for bound in ("estimate", "low", "high"))
    # A percentile interval of a biased statistic, as R² near 0, may leave its estimate outside: no bar on that side.
    reach = [(estimate - low).clip(min=0), (high - estimate).clip(min=0)]
    axes.errorbar(depth, estimate, yerr=reach, marker="o", capsize=1.5, **look)


_KINDS = (("attn", "attention"), ("mlp", "MLP"))
_LOOKS: dict[str, dict[str, Any]] = {
    "built-in": {"label": "model"},
    "built-in-dropout": {"label": "twin with dropout", "linestyle": "--", "shift": 0.3},
}


def effects_figure(data: dict[str, Any]) -> Figure:
    """Mean unembedding-based and ablation-based effect of every layer (the paper's Figure 2), demo prompts."""
    names = list(finished().values())
    with style():
        size = (PAGE, 2.2 * len(names) + 0.2)
        figure, axes = plt.subplots(len(names), 2, figsize=size, sharex=True, sharey="col", squeeze=False)
        for name, row in zip(names, axes, strict=True):
            curves = curves_of(data, f"{name}/demo")
            # The negative of an interval has its bounds the other way round.
            turned = -curves["total"].sel(bound=["estimate", "high", "low"]).assign_coords(bound=curves["bound"])
            negated = curves.assign(lost_logits=turned)
            for cell, (kind, title) in zip(row, _KINDS, strict=True):
                colour = ATTENTION if kind == "attn" else MLP
                _line(cell, negated, "unembed", kind, color=colour, label="unembedding")
                _line(cell, negated, "lost_logits", kind, color=GREY, label="lost by ablation")
                cell.axhline(0, color="black", linewidth=0.5)
                cell.set_title(f"{title}, {_LOOKS[name]['label']}")
                cell.legend()
            row[0].set_ylabel("mean effect (logits)")
        for cell in axes[-1]:
            cell.set_xlabel("layer")
            cell.xaxis.get_major_locator().set_params(integer=True)
    return figure


def compensation_figure(data: dict[str, Any], prompts: str) -> Figure:
    """Slope of CE on DE and R² of every layer (the paper's Figure 7d), model and twin, on one set of prompts.

    Without attn.0, whose direct effect hardly varies: its slope says nothing and would flatten all others.
    """
    with style():
        figure, axes = plt.subplots(2, 2, figsize=(PAGE, 4.2), sharex=True, sharey="row")
        for column, (kind, title) in zip(axes.T, _KINDS, strict=True):
            for name, colour in zip(finished().values(), (ATTENTION if kind == "attn" else MLP, GREY), strict=False):
                curves = curves_of(data, f"{name}/{prompts}")
                shown = curves.sel(ablated=[a for a in curves["ablated"].values if a != "attn.0"])
                for cell, quantity in zip(column, ("slope", "r2"), strict=True):
                    _line(cell, shown, quantity, kind, color=colour, **_LOOKS[name])
            column[0].axhline(0, color="black", linewidth=0.5)
            column[0].set_title(f"{title} ablated")
            column[0].legend()
            column[1].set_xlabel("layer")
            column[1].xaxis.get_major_locator().set_params(integer=True)
        axes[0, 0].set_ylabel("slope of CE on DE")
        axes[1, 0].set_ylabel("R²")
    return figure


def variants_figure(data: dict[str, Any]) -> Figure:
    """Slope of CE on DE in every layer of the variants, the model and its twin, on the fixed prose prompts.

    A row a model, a dot a layer, coloured by depth; full where the interval lies above 0. Without attn.0, whose
    direct effect hardly varies: its slope says nothing and would flatten all others.
    """
    names = [
        name for name in (*(variant.name for variant in VARIANTS), *finished().values()) if f"{name}/passages" in data
    ]
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(PAGE, 0.32 * len(names) + 0.9), sharey=True)
        for cell, (kind, title) in zip(axes, _KINDS, strict=True):
            for row, name in enumerate(names):
                _dots(cell, curves_of(data, f"{name}/passages"), kind, row)
            cell.axvline(0, color="black", linewidth=0.5)
            cell.set_title(f"{title} ablated")
            cell.set_xlabel("slope of CE on DE")
        axes[0].set_yticks(range(len(names)), names)
        axes[0].invert_yaxis()
        depth = ScalarMappable(Normalize(0, 1), DEPTH_CMAP)
        figure.colorbar(depth, ax=axes, label="depth (share of layers)", ticks=[0, 0.5, 1], pad=0.01)
    return figure


def _dots(axes: Axes, curves: xr.Dataset, kind: str, row: int) -> None:
    """The slopes of one model's layers of a kind, in one row."""
    slopes = of_kind(curves[["slope"]], kind)["slope"]
    layers = [int(str(a).split(".")[1]) for a in slopes["ablated"].values]
    deepest = max(int(str(a).split(".")[1]) for a in curves["ablated"].values)
    for layer, (slope, low) in zip(layers, slopes.sel(bound=["estimate", "low"]).values.T, strict=True):
        if kind == "attn" and layer == 0:
            continue
        colour = mpl.colormaps[DEPTH_CMAP](layer / deepest)
        axes.plot(slope, row, "o", color=colour, markersize=4, fillstyle="full" if low > 0 else "none", alpha=0.85)


def training_figure(data: dict[str, Any]) -> Figure:
    """Recall, loss and self-repair of model and twin along training, on the fixed sets.

    Grey: the second part, with more facts than prose.
    """
    with style():
        figure, axes = plt.subplots(1, 3, figsize=(PAGE, 2.6))
        for name, colour in zip(finished().values(), (ATTENTION, ORANGE), strict=False):
            points = list(checkpoints(data, name).items())
            steps = [step for step, _ in points]
            axes[0].plot(steps, [data[f"{key}/quality"]["recall"] for _, key in points], "o-", color=colour)
            axes[1].plot(
                steps, [data[f"{key}/quality"]["loss"]["nats_per_token"] for _, key in points], "o-", color=colour
            )
            for kind, mark in (("attn", "-"), ("mlp", ":")):
                label = f"{_LOOKS[name]['label']}, {'attention' if kind == 'attn' else 'MLP'}"
                shares = [_repairing_share(curves_of(data, f"{key}/passages"), kind) for _, key in points]
                axes[2].plot(steps, shares, "o" + mark, color=colour, label=label)
        titles = ("recall of facts", "loss on held-out prose", "layers with slope above 0")
        labels = ("share", "nats per token", "share")
        for cell, title, label in zip(axes, titles, labels, strict=True):
            cell.axvspan(FIRST.steps, FIRST.steps + SECOND.steps, color=GREY, alpha=0.2, linewidth=0)
            cell.set_title(title)
            cell.set_ylabel(label)
            cell.set_xlabel("step")
        axes[0].set_ylim(0, 1.02)
        axes[2].set_ylim(-0.02, 1.02)
        figure.legend(*axes[2].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _repairing_share(curves: xr.Dataset, kind: str) -> float:
    """The share of the layers of a kind whose slope of CE on DE has an interval above 0."""
    return float((of_kind(curves[["slope"]], kind)["slope"].sel(bound="low") > 0).mean())
