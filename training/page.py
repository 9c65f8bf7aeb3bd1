"""The measurements behind docs/built-in-model.md, kept as data beside it, and the figures drawn from them.

Two kinds of prompts: the shipped demo set, which the model itself answers correctly; and fixed sets that know
nothing of any model (`text`: held-out prose cut before random words; `facts`: facts in left-out wordings), on which
models, variants and checkpoints are compared.
"""

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hydrascope.figures.style import ATTENTION, GREEN, GREY, MLP, ORANGE, PAGE, PURPLE, SKY, save, style
from hydrascope.loading import load_model
from training import corpus, evaluate, measure, prompts
from training.build import sources
from training.facts import facts
from training.prompts import Line
from training.prose import Prose
from training.recipe import MODEL, TWIN, VARIANTS
from training.ship import NAMES, ZOO

DOCS = Path(__file__).parent.parent / "docs" / "built-in-model"
DATA = DOCS / "measurements.json"

#: Prompts of each fixed set.
TEXTS, FACTS = 400, 300


def fixed_sets() -> dict[str, list[Line]]:
    """The prompts on which all models are compared."""
    _, held_out = corpus.split(sources())
    known = prompts.world_facts(facts())
    return {
        "text": random.Random(1).sample(prompts.cuts(held_out, per_passage=1, seed=1), TEXTS),
        "facts": random.Random(1).sample(known, FACTS),
    }


def measure_all() -> None:
    """Measure models, variants and checkpoints; what is measured already is kept."""
    data = _data()
    sets = fixed_sets()
    demo = list(prompts.read(ZOO / "prompts" / "demo.jsonl"))
    _, held_out = corpus.split(sources())
    for name in NAMES.values():
        for key, lines in {"demo": demo, **sets}.items():
            _once(data, f"{name}/{key}", partial(_measured, ZOO / "models" / name, lines, key))
    for recipe in (MODEL, TWIN):
        for folder in sorted((recipe.folder / "checkpoints").glob("checkpoint-*"), key=_step):
            where = f"{NAMES[recipe]}@{_step(folder)}"
            _once(data, f"{where}/quality", partial(_brief_quality, folder, sets["facts"], held_out))
            _once(data, f"{where}/text", partial(_measured, folder, sets["text"], "text"))
    for variant in VARIANTS:
        _once(data, f"{variant.name}/quality", partial(_brief_quality, variant.folder, sets["facts"], held_out))
        for key, lines in sets.items():
            _once(data, f"{variant.name}/{key}", partial(_measured, variant.folder, lines, key))


def _step(folder: Path) -> int:
    return int(folder.name.split("-")[1])


def _brief_quality(folder: Path, known: list[Line], held_out: Prose) -> dict[str, Any]:
    """Recall on the fixed facts, and loss on a fifth of the held-out prose: enough for a curve."""
    model, tokenizer = evaluate.load(folder)
    texts = [" ".join(passage) for passages in held_out.values() for passage in passages[::5]]
    return {
        "recall": evaluate.recall(model, tokenizer, known)["all"],
        "loss": evaluate.loss(model, tokenizer, texts),
    }


def _data() -> dict[str, Any]:
    return json.loads(DATA.read_text()) if DATA.exists() else {}


def _once(data: dict[str, Any], key: str, make: Callable[[], dict[str, Any]]) -> None:
    if key not in data:
        data[key] = make()
        DOCS.mkdir(parents=True, exist_ok=True)
        DATA.write_text(json.dumps(data, indent=None, separators=(",", ":")) + "\n")
        print("measured", key, flush=True)


def _measured(folder: Path, lines: list[Line], name: str) -> dict[str, Any]:
    result = measure.effects(load_model(str(folder)), lines, name)
    return {
        "prompts": result.sizes["prompt"],
        "worst_imbalance": float(result.attrs["worst_imbalance"]),
        "curves": measure.as_data(measure.curves(result)),
        "erasure": measure.erasure_data(measure.late_erasure(result)),
    }


def draw() -> None:
    """All figures of the page, from the data alone."""
    data = _data()
    for name, figure in (
        ("effects", effects_figure(data)),
        ("compensation", compensation_figure(data)),
        ("variants", variants_figure(data)),
        ("training", training_figure(data)),
    ):
        save(figure, DOCS, name)


def _curves(data: dict[str, Any], key: str) -> xr.Dataset:
    return measure.from_data(data[key]["curves"])


def _line(axes: Axes, curves: xr.Dataset, name: str, kind: str, **look: Any) -> None:
    """One quantity over depth with its intervals."""
    chosen = curves[name].sel(ablated=[a for a in curves["ablated"].values if a.startswith(kind)])
    depth = [int(str(a).split(".")[1]) for a in chosen["ablated"].values]
    estimate, low, high = (chosen.sel(bound=bound).values for bound in ("estimate", "low", "high"))
    axes.errorbar(depth, estimate, yerr=[estimate - low, high - estimate], marker="o", capsize=1.5, **look)


_KINDS = (("attn", "attention"), ("mlp", "MLP"))
_LOOKS = {"built-in": {"label": "model"}, "built-in-dropout": {"label": "twin with dropout", "linestyle": "--"}}


def effects_figure(data: dict[str, Any]) -> Figure:
    """Mean unembedding-based and ablation-based effect of every layer (the paper's Figure 2), demo prompts."""
    with style():
        figure, axes = plt.subplots(2, 2, figsize=(PAGE, 4.2), sharex=True, sharey="row")
        for row, (kind, title) in zip(axes, _KINDS, strict=True):
            for column, name in zip(row, NAMES.values(), strict=True):
                curves = _curves(data, f"{name}/demo")
                colour = ATTENTION if kind == "attn" else MLP
                negated = curves.assign(lost_logits=-curves["total"])
                _line(column, negated, "unembed", kind, color=colour, label="unembedding")
                _line(column, negated, "lost_logits", kind, color=GREY, label="lost by ablation")
                column.axhline(0, color="black", linewidth=0.5)
                column.set_title(f"{title}, {_LOOKS[name]['label']}")
            row[0].set_ylabel("mean effect (logits)")
            row[0].legend()
        for column in axes[-1]:
            column.set_xlabel("layer")
    return figure


def compensation_figure(data: dict[str, Any]) -> Figure:
    """Slope of CE on DE and R² of every layer (the paper's Figure 7d), model and twin, demo prompts."""
    with style():
        figure, axes = plt.subplots(2, 2, figsize=(PAGE, 4.2), sharex=True, sharey="row")
        for column, (kind, title) in zip(axes.T, _KINDS, strict=True):
            for name, colour in zip(NAMES.values(), (ATTENTION if kind == "attn" else MLP, ORANGE), strict=True):
                for cell, quantity in zip(column, ("slope", "r2"), strict=True):
                    _line(cell, _curves(data, f"{name}/demo"), quantity, kind, color=colour, **_LOOKS[name])
            column[0].axhline(0, color="black", linewidth=0.5)
            column[0].set_title(f"{title} ablated")
            column[0].legend()
            column[1].set_xlabel("layer")
        axes[0, 0].set_ylabel("slope of CE on DE")
        axes[1, 0].set_ylabel("R²")
    return figure


def variants_figure(data: dict[str, Any]) -> Figure:
    """Slope of CE on DE in the variants, on the fixed prose prompts."""
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(PAGE, 2.6), sharey=True)
        for cell, (kind, title) in zip(axes, _KINDS, strict=True):
            for variant, colour in zip(VARIANTS, (ATTENTION, GREEN, ORANGE, PURPLE, SKY), strict=False):
                if f"{variant.name}/text" in data:
                    _line(cell, _curves(data, f"{variant.name}/text"), "slope", kind, color=colour, label=variant.name)
            cell.axhline(0, color="black", linewidth=0.5)
            cell.set_title(f"{title} ablated")
            cell.set_xlabel("layer")
        axes[0].set_ylabel("slope of CE on DE")
        axes[1].legend()
    return figure


def training_figure(data: dict[str, Any]) -> Figure:
    """Recall, loss and self-repair of model and twin along training, on the fixed sets."""
    with style():
        figure, axes = plt.subplots(1, 3, figsize=(PAGE, 2.4))
        for name, colour in zip(NAMES.values(), (ATTENTION, ORANGE), strict=True):
            points = sorted(
                (int(key.split("@")[1].split("/")[0]), key.removesuffix("/text"))
                for key in data
                if key.startswith(f"{name}@") and key.endswith("/text")
            )
            steps = [step for step, _ in points]
            axes[0].plot(steps, [data[f"{key}/quality"]["recall"] for _, key in points], "o-", color=colour)
            axes[1].plot(
                steps, [data[f"{key}/quality"]["loss"]["nats_per_token"] for _, key in points], "o-", color=colour
            )
            for kind, mark in (("attn", "-"), ("mlp", ":")):
                label = f"{_LOOKS[name]['label']}, {'attention' if kind == 'attn' else 'MLP'}"
                shares = [repairing_share(_curves(data, f"{key}/text"), kind) for _, key in points]
                axes[2].plot(steps, shares, "o" + mark, color=colour, label=label)
        titles = ("recall of facts", "loss on held-out prose (nats per token)", "layers with slope above 0")
        for cell, title in zip(axes, titles, strict=True):
            cell.set_title(title)
            cell.set_xlabel("step")
        axes[0].set_ylim(0, 1.02)
        axes[2].set_ylim(-0.02, 1.02)
        axes[2].legend()
    return figure


def repairing_share(curves: xr.Dataset, kind: str) -> float:
    """The share of the layers of a kind whose slope of CE on DE has an interval above 0."""
    low = curves["slope"].sel(bound="low", ablated=[a for a in curves["ablated"].values if a.startswith(kind)])
    known = low.dropna("ablated")
    return float((known > 0).mean())
