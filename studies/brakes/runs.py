"""Measure the study of brakes: one stored result for each run, resumed if there is one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import hydrascope as hs
from hydrascope.components.order import downstream
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import PromptSet
from hydrascope.storage.analysis_file import read_analysis, write_analysis
from studies.brakes.ablations import Boost
from studies.brakes.templates import prompts_of

#: The ablations by which reactions of the confirmation are measured, each with its positions.
RUNS: dict[str, tuple[Any, str]] = {
    "zero": (hs.Zero(), "last"),
    "boost": (Boost(), "last"),
    "mean": (hs.Mean(), "last"),
    "counterfactual": (hs.Counterfactual(), "last"),
    "all positions": (hs.Zero(), "all"),
}


@dataclass(frozen=True)
class Stores:
    """The paths of the results of one model.

    Attributes:
        explored: a sweep of all heads and MLPs on the exploration prompts.
        seeds: the seed heads, those that remove most first.
        inert: heads that remove nothing, and change the stream.
        kicks: the distances of the heads that may be inert, on the exploration prompts.
        reactions: by run, the ablations of each seed, alone and with each candidate frozen.
        scores: the search for backups, one dataset a round of templates.
    """

    explored: Path
    seeds: tuple[str, ...]
    inert: tuple[str, ...]
    kicks: Path
    reactions: dict[str, Path]
    scores: tuple[Path, ...]


def measure(settings: dict[str, Any], prompts: PromptSet, stores: Path) -> dict[str, Stores]:
    """Measure all runs of the study; return the paths of their results by model.

    Args:
        settings: the study's settings.
        prompts: of no use: both halves are made for each model.
        stores: the folder of the results.
    """
    return {name: measure_model(settings, name, stores / name) for name in settings["models"]}


def measure_model(settings: dict[str, Any], name: str, folder: Path) -> Stores:
    """Measure all runs of one model."""
    model = hs.load_model(name, dtype=settings["dtype"])
    old, new = (halves_of(settings, half, model) for half in ("exploration", "confirmation"))
    explored = folder / "explored.zarr"
    swept = _sweep(model, old, hs.Zero(), ["heads", "mlp"], "last", explored)
    removed = mean_removed(swept)
    seeds = choose_seeds(settings, model, removed)
    first = min(_block(label) for label in seeds)
    small = [
        label
        for label, value in removed.items()
        if label.startswith("head.")
        and _block(label) >= first
        and reacting(model, label)
        and abs(value) < settings["seeds"]["inert"]["most_removed"]
    ]
    kicks = folder / "kicks.zarr"
    if not kicks.exists():
        some = PromptSet.of(old.prompts[: settings["kick_prompts"]], old.name)
        write_analysis(hs.analyses.distance(model, some, hs.Zero(), ablate=small, readouts=[_readout()]), kicks)
    inert = choose_inert(settings, read_analysis(kicks, "kick", "the study"))
    reactions = {"explored": folder / "reactions-explored.zarr"}
    _sweep(model, old, hs.Zero(), _reactions(model, seeds), "last", reactions["explored"])
    for run, (ablation, at) in RUNS.items():
        chosen = new if at == "last" else PromptSet.of(new.prompts[: settings["prompts_all_positions"]], new.name)
        reactions[run] = folder / f"reactions-{run.replace(' ', '-')}.zarr"
        _sweep(model, chosen, ablation, _reactions(model, seeds), at, reactions[run])
    reactions["inert"] = folder / "reactions-inert.zarr"
    _sweep(model, new, hs.Zero(), _reactions(model, inert), "last", reactions["inert"])
    return Stores(explored, seeds, inert, kicks, reactions, _scores(settings, model, new, seeds, first, folder))


def halves_of(settings: dict[str, Any], half: str, model: LanguageModel) -> PromptSet:
    """Return the prompts of a half for a model."""
    return prompts_of(half, model, settings["prompts_each"])


def mean_removed(swept: xr.Dataset) -> dict[str, float]:
    """Return what each ablation removes, in the mean over prompts."""
    means = -swept["direct"].isel(readout=0).mean(("prompt", "patch"), dtype=np.float64)
    return dict(zip(map(str, swept["ablated"].values), means.values.tolist(), strict=True))


def choose_seeds(settings: dict[str, Any], model: LanguageModel, removed: dict[str, float]) -> tuple[str, ...]:
    """Return the heads that remove most and have heads downstream, the first ones first."""
    heads = sorted((label for label in removed if label.startswith("head.")), key=lambda label: -removed[label])
    return tuple(
        [label for label in heads if any(map(_is_head, reacting(model, label)))][: settings["seeds"]["scored"]]
    )


def choose_inert(settings: dict[str, Any], kicks: xr.Dataset) -> tuple[str, ...]:
    """Return the heads with the largest kick after their block, in medians over prompts."""
    after = {
        str(label): float(kicks["kick"].sel(ablated=label, block=int(first)).median("prompt"))
        for label, first in zip(kicks["ablated"].values, kicks["first_block"].values, strict=True)
    }
    return tuple(sorted(after, key=lambda label: -after[label])[: settings["seeds"]["inert"]["count"]])


def reacting(model: LanguageModel, label: str) -> list[hs.Component]:
    """Return the heads and MLPs downstream of a head."""
    each = [*(head for sublayer in model.sublayers if sublayer.kind == "attn" for head in model.units(sublayer))]
    each += [sublayer for sublayer in model.sublayers if sublayer.kind == "mlp"]
    below = downstream(model, hs.Override.parse(label), each)
    return [component for component, there in zip(each, below, strict=True) if there]


def _reactions(model: LanguageModel, seeds: Iterable[str]) -> list[str]:
    """Return each seed ablated alone, and with each component downstream frozen."""
    return [override for seed in seeds for override in (seed, *(f"{seed}|{each}" for each in reacting(model, seed)))]


def _scores(
    settings: dict[str, Any], model: LanguageModel, prompts: PromptSet, seeds: Sequence[str], first: int, folder: Path
) -> tuple[Path, ...]:
    """Search for backups, a round of 24 prompts at a time, and keep the dataset of each."""
    candidates = f"heads.{first}-{len(model.blocks) - 1},mlp.{first}-{len(model.blocks) - 1}"
    paths = []
    for start in range(0, settings["prompts_scored"], 24):
        path = folder / f"scores-{start}.zarr"
        if not path.exists():
            some = PromptSet.of(prompts.prompts[start : start + 24], prompts.name)
            found = hs.analyses.backups(
                model, some, of=list(seeds), candidates=candidates, slopes=False, readouts=[_readout()]
            )
            write_analysis(found, path)
        paths.append(path)
    return tuple(paths)


def _sweep(
    model: LanguageModel, prompts: PromptSet, ablation: Any, ablate: Sequence[str], at: str, path: Path
) -> xr.Dataset:
    return hs.sweep(
        model,
        prompts,
        ablation,
        ablate=list(ablate),
        at=at,
        readouts=[_readout()],
        keep="effects",
        out=path,
        resume=True,
        progress=True,
        say=print,
    )


def _readout() -> hs.LogitDifference:
    return hs.LogitDifference()


def _block(label: str) -> int:
    return hs.Component.parse(label).block


def _is_head(component: hs.Component) -> bool:
    return component.kind == "head"
