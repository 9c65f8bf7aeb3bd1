"""The figures of docs/built-in-model.md, drawn from its data alone."""

from typing import Any

import matplotlib.pyplot as plt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hydrascope.figures.style import ATTENTION, GREEN, GREY, MLP, ORANGE, PAGE, PURPLE, SKY, style
from training.measure import checkpoints, curves_of, of_kind
from training.recipe import VARIANTS
from training.ship import finished


def _line(axes: Axes, curves: xr.Dataset, name: str, kind: str, **look: Any) -> None:
    """One quantity over depth with its intervals."""
    chosen = curves[name].sel(ablated=[a for a in curves["ablated"].values if str(a).startswith(kind)])
    depth = [int(str(a).split(".")[1]) for a in chosen["ablated"].values]
    estimate, low, high = (chosen.sel(bound=bound).values for bound in ("estimate", "low", "high"))
    # A percentile interval of a biased statistic, as R² near 0, may leave its estimate outside: no bar on that side.
    reach = [(estimate - low).clip(min=0), (high - estimate).clip(min=0)]
    axes.errorbar(depth, estimate, yerr=reach, marker="o", capsize=1.5, **look)


_KINDS = (("attn", "attention"), ("mlp", "MLP"))
_LOOKS = {"built-in": {"label": "model"}, "built-in-dropout": {"label": "twin with dropout", "linestyle": "--"}}


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
    return figure


def compensation_figure(data: dict[str, Any]) -> Figure:
    """Slope of CE on DE and R² of every layer (the paper's Figure 7d), model and twin, demo prompts."""
    with style():
        figure, axes = plt.subplots(2, 2, figsize=(PAGE, 4.2), sharex=True, sharey="row")
        for column, (kind, title) in zip(axes.T, _KINDS, strict=True):
            for name, colour in zip(finished().values(), (ATTENTION if kind == "attn" else MLP, ORANGE), strict=False):
                for cell, quantity in zip(column, ("slope", "r2"), strict=True):
                    _line(cell, curves_of(data, f"{name}/demo"), quantity, kind, color=colour, **_LOOKS[name])
            column[0].axhline(0, color="black", linewidth=0.5)
            column[0].set_title(f"{title} ablated")
            column[0].legend()
            column[1].set_xlabel("layer")
        axes[0, 0].set_ylabel("slope of CE on DE")
        axes[1, 0].set_ylabel("R²")
    return figure


def variants_figure(data: dict[str, Any]) -> Figure:
    """Slope of CE on DE in the variants and the model, on the fixed prose prompts.

    Without attn.0, whose direct effect hardly varies: its interval would flatten all others.
    """
    names = [name for name in (*(variant.name for variant in VARIANTS), *finished().values()) if f"{name}/text" in data]
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(PAGE, 2.6), sharey=True)
        for cell, (kind, title) in zip(axes, _KINDS, strict=True):
            for name, colour in zip(names, (ATTENTION, GREEN, ORANGE, PURPLE, SKY), strict=False):
                curves = curves_of(data, f"{name}/text")
                shown = curves.sel(ablated=[a for a in curves["ablated"].values if a != "attn.0"])
                _line(cell, shown, "slope", kind, color=colour, label=name)
            cell.axhline(0, color="black", linewidth=0.5)
            cell.set_title(f"{title} ablated")
            cell.set_xlabel("layer")
            cell.xaxis.get_major_locator().set_params(integer=True)
        axes[0].set_ylabel("slope of CE on DE")
        axes[0].legend()
    return figure


def training_figure(data: dict[str, Any]) -> Figure:
    """Recall, loss and self-repair of model and twin along training, on the fixed sets."""
    with style():
        figure, axes = plt.subplots(1, 3, figsize=(PAGE, 2.4))
        for name, colour in zip(finished().values(), (ATTENTION, ORANGE), strict=False):
            points = list(checkpoints(data, name).items())
            steps = [step for step, _ in points]
            axes[0].plot(steps, [data[f"{key}/quality"]["recall"] for _, key in points], "o-", color=colour)
            axes[1].plot(
                steps, [data[f"{key}/quality"]["loss"]["nats_per_token"] for _, key in points], "o-", color=colour
            )
            for kind, mark in (("attn", "-"), ("mlp", ":")):
                label = f"{_LOOKS[name]['label']}, {'attention' if kind == 'attn' else 'MLP'}"
                shares = [_repairing_share(curves_of(data, f"{key}/text"), kind) for _, key in points]
                axes[2].plot(steps, shares, "o" + mark, color=colour, label=label)
        titles = ("recall of facts", "loss on held-out prose (nats per token)", "layers with slope above 0")
        for cell, title in zip(axes, titles, strict=True):
            cell.set_title(title)
            cell.set_xlabel("step")
        axes[0].set_ylim(0, 1.02)
        axes[2].set_ylim(-0.02, 1.02)
        axes[2].legend()
    return figure


def _repairing_share(curves: xr.Dataset, kind: str) -> float:
    """The share of the layers of a kind whose slope of CE on DE has an interval above 0."""
    return float((of_kind(curves[["slope"]], kind)["slope"].sel(bound="low") > 0).mean())
