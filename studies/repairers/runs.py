"""Measure the study: the reaction of each head downstream, a store for each context, resumed."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

import hydrascope as hs
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import PromptSet
from studies.brakes.runs import reacting
from studies.damping.halves import Half
from studies.damping.weight_noise import with_noise
from studies.measuring import is_whole, sweep_to
from studies.repairers.ablations import WholeAndPart
from studies.repairers.contexts import Context, contexts_of

Sets = Mapping[str, PromptSet]


class Run(NamedTuple):
    """A stored sweep.

    Attributes:
        model, context: the model and the context.
        half: the half the context belongs to.
        kind: `answered`, a clean pass of all prompts; `removed`, the sublayers to choose from; `reactions`, the chosen
            ones with each component downstream frozen; `responses`, the chosen ones, with all heads read; `noise.0`
            and so on, reactions with noise on the weights.
    """

    model: str
    context: str
    half: Half
    kind: str

    def at(self, stores: Path) -> Path:
        """Return the path of the result."""
        name = "-".join((self.model, self.context, self.kind)).replace("/", "--").replace(" ", "_")
        return stores / f"{name}.zarr"


def measure(settings: Mapping[str, Any], prompts: Sets, stores: Path) -> dict[Run, Path]:
    """Measure, or resume, all runs of the study; return the paths of their results.

    Args:
        settings: the study's settings.
        prompts: the sets of prompts by the names in the settings.
        stores: the folder of the results.
    """
    stores.mkdir(parents=True, exist_ok=True)
    runs: list[Run] = []
    for name in settings["models"]:
        model = hs.load_model(name, dtype=settings["dtype"])
        every = contexts_of(settings, prompts, model)
        runs += explore(settings, model, name, every, stores)
        chosen = choose(settings, model, [run for run in runs if run.model == name], stores)
        runs += react(settings, model, name, of_half(every, "confirmation"), chosen, stores)
        runs += react(settings, model, name, explored(every), chosen, stores)
        runs += _noise(settings, model, name, every, chosen, stores)
    return {run: run.at(stores) for run in runs}


def of_half(every: Mapping[str, Context], half: str) -> dict[str, Context]:
    """Return the contexts of a half."""
    return {label: context for label, context in every.items() if context.half == half}


def explored(every: Mapping[str, Context]) -> dict[str, Context]:
    """Return every other context of the exploration half: those in which reactions were looked at."""
    return dict(list(of_half(every, "exploration").items())[::2])


def explore(
    settings: Mapping[str, Any], model: LanguageModel, name: str, every: Mapping[str, Context], stores: Path
) -> Iterator[Run]:
    """Ablate all sublayers to choose from in the contexts of the exploration half."""
    for label, context in of_half(every, "exploration").items():
        some = answered(settings, model, name, label, context, stores)
        yield Run(name, label, context.half, "answered")
        if len(some) < settings["contexts"]["least"]:
            continue
        run = Run(name, label, context.half, "removed")
        _sweep(settings, model, run, some, candidates(settings, model), stores)
        yield run


def react(
    settings: Mapping[str, Any],
    model: LanguageModel,
    name: str,
    contexts: Mapping[str, Context],
    chosen: Sequence[str],
    stores: Path,
) -> Iterator[Run]:
    """Measure the reactions to the chosen ablations in some contexts."""
    for label, context in contexts.items():
        some = answered(settings, model, name, label, context, stores)
        yield Run(name, label, context.half, "answered")
        if len(some) < settings["contexts"]["least"]:
            continue
        run = Run(name, label, context.half, "responses")
        _sweep(settings, model, run, some, chosen, stores, keep="patches", read="heads")
        yield run
        run = run._replace(kind="reactions")
        units_at(run.at(stores)).write_text(json.dumps([prompt.template or prompt.text for prompt in some]), "utf-8")
        _sweep(settings, model, run, some, labels(model, chosen), stores)
        yield run


def answered(
    settings: Mapping[str, Any], model: LanguageModel, name: str, label: str, context: Context, stores: Path
) -> list[Any]:
    """Return the first prompts of a context in which the answer is ahead of the foil."""
    run = Run(name, label, context.half, "answered")
    _sweep(settings, model, run, context.prompts.prompts, [f"mlp.{len(model.blocks) - 1}"], stores)
    right = ahead(hs.open_results(run.at(stores)))
    some = [prompt for prompt, yes in zip(context.prompts, right, strict=True) if yes]
    return some[: settings["contexts"][context.half]]


def ahead(results: xr.Dataset) -> np.ndarray:
    """Return for each prompt whether the answer's logit is above the foil's in the clean pass."""
    return np.asarray(results["logit"].sel(readout="difference") > 0)


def units_at(path: Path) -> Path:
    """Return the file with the unit of each prompt of a store: its template, or its text."""
    return path.with_suffix(".units.json")


def candidates(settings: Mapping[str, Any], model: LanguageModel) -> list[str]:
    """Return the sublayers to choose from: those of the declared depth with enough heads downstream."""
    depth, declared = len(model.blocks), settings["ablated"]
    first, last = (round(share * depth) for share in declared["depth"])
    return [
        str(sublayer)
        for sublayer in model.sublayers
        if first <= sublayer.block <= last and len(heads_below(model, str(sublayer))) >= declared["least_heads"]
    ]


def heads_below(model: LanguageModel, label: str) -> list[str]:
    """Return the heads downstream of a component."""
    return [str(each) for each in reacting(model, label) if each.kind == "head"]


def choose(settings: Mapping[str, Any], model: LanguageModel, runs: Iterable[Run], stores: Path) -> list[str]:
    """Return the sublayers that are ablated, in the order of the model.

    They are those with the largest |mean| of what they remove over the contexts of the exploration half, relative to
    its standard deviation over them; those that remove hardly anything come last.
    """
    paths = [run.at(stores) for run in runs if run.kind == "removed"]
    removed = np.stack([_removed(hs.open_results(path)) for path in paths])
    mean = abs(removed.mean(0))
    clear = np.where(mean >= settings["ablated"]["least_removed"], mean / removed.std(0, ddof=1), 0)
    every = candidates(settings, model)
    best = np.argsort(-clear, kind="stable")[: settings["ablated"]["count"]]
    return [every[place] for place in sorted(best)]


def _removed(results: xr.Dataset) -> np.ndarray:
    """Return what each ablation removes in the mean over prompts."""
    means = -results["direct"].sel(readout="difference").mean(("prompt", "patch"), dtype=np.float64)
    return np.asarray(means.values)


def labels(model: LanguageModel, chosen: Iterable[str]) -> list[str]:
    """Return each ablation alone, and with each component downstream frozen."""
    return [override for k in chosen for override in (k, *(f"{k}|{each}" for each in reacting(model, k)))]


def _noise(
    settings: Mapping[str, Any],
    model: LanguageModel,
    name: str,
    every: Mapping[str, Context],
    chosen: Sequence[str],
    stores: Path,
) -> Iterator[Run]:
    """Measure the reactions again in some confirmation contexts, with noise on the weights."""
    noise = settings["weight_noise"]
    some = {
        label: answered(settings, model, name, label, context, stores)
        for label, context in of_half(every, "confirmation").items()
    }
    enough = [label for label, each in some.items() if len(each) >= settings["contexts"]["least"]]
    for seed in noise["seeds"]:
        noised = None
        for label in enough[: noise["contexts"]]:
            run, few = Run(name, label, "confirmation", f"noise.{seed}"), some[label][: noise["prompts"]]
            if not is_whole(run.at(stores), len(few)):
                noised = noised or with_noise(model, seed)
                _sweep(settings, noised, run, few, labels(model, chosen), stores)
            yield run


def _sweep(
    settings: Mapping[str, Any],
    model: LanguageModel,
    run: Run,
    prompts: Sequence[Any],
    ablate: Sequence[str],
    stores: Path,
    **how: Any,
) -> None:
    if is_whole(run.at(stores), len(prompts)):
        return
    how = {"keep": "effects", **how}
    some = PromptSet.of(prompts, f"{run.context}, {run.half}")
    ablation: Any = hs.Zero() if run.kind in ("answered", "removed") else WholeAndPart()
    sweep_to(run.at(stores), settings, model, some, ablation, list(ablate), [hs.LogitDifference()], **how)
