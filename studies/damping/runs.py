"""Measure the study: the split in every half, then the controls on the components that are chosen."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import hydrascope as hs
from hydrascope.models.language_model import LanguageModel
from studies.damping import afterwards
from studies.damping.ablations import BeyondEmbeddings, Pushes, WrongContent
from studies.damping.chosen import candidates, last_third, pick
from studies.damping.halves import HALVES, Half, take
from studies.damping.weight_noise import with_noise
from studies.measuring import is_whole, sweep_to

#: The readout that the primary claim is read on.
PRIMARY = "difference"
#: The word for all sublayers that can be chosen.
LATE = "late layers"
_READOUTS: dict[str, Any] = {"difference": hs.LogitDifference(), "logit": hs.Logit()}


class Run(NamedTuple):
    """A stored result.

    Attributes:
        model, prompts, half: the model, the set of prompts and its half.
        kind: the ablation, or the control.
    """

    model: str
    prompts: str
    half: Half
    kind: str

    def at(self, stores: Path) -> Path:
        """Return the place of the result."""
        ending = "json" if self.kind == "distance" else "zarr"
        return stores / f"{'-'.join(self).replace('/', '--')}.{ending}"


class _Halves(NamedTuple):
    """A set of prompts and the rule that halves it."""

    name: str
    prompts: hs.prompts.PromptSet
    sizes: Mapping[str, Any]
    explored_before: int = 0

    def first(self, half: Half, count: int | None = None) -> hs.prompts.PromptSet:
        chosen = take(self.prompts, half, self.sizes, self.explored_before)[:count]
        return hs.prompts.PromptSet.of(chosen, f"{self.name}, {half}")


def measure(settings: Mapping[str, Any], prompts: Mapping[str, hs.prompts.PromptSet], stores: Path) -> dict[Run, Path]:
    """Measure, or resume, all runs of the study; return the paths of their results.

    Args:
        settings: the study's settings.
        prompts: the sets of prompts by the names in the settings.
        stores: the folder of the results.
    """
    stores.mkdir(parents=True, exist_ok=True)
    halves = settings["halves"]
    sets = {name: _Halves(name, each, halves[name], halves["explored_before"]) for name, each in prompts.items()}
    paths: dict[Run, Path] = {}
    for name in settings["models"]:
        model = hs.load_model(name, dtype=settings["dtype"])
        for run in _measure_halves(settings, model, name, sets, stores):
            paths[run] = run.at(stores)
        for run in _measure_controls(settings, model, name, sets, stores):
            paths[run] = run.at(stores)
    for name, control in settings["controls"].items():
        model = hs.load_model(name, dtype=settings["dtype"])
        label = control["prompts"]
        own = {label: _Halves(label, hs.load_prompts(label), control)}
        runs = [*_measure_halves(settings, model, name, own, stores)]
        if "chosen" in control:
            runs += _measure_wrong_content(settings, model, name, own, stores, control["chosen"])
        paths |= {run: run.at(stores) for run in runs}
    return paths


def _measure_halves(
    settings: Mapping[str, Any], model: LanguageModel, name: str, sets: Mapping[str, _Halves], stores: Path
) -> Iterator[Run]:
    ablated = settings["controls"].get(name, {}).get("chosen", settings["ablate"])
    if ablated == LATE:
        ablated = candidates(map(str, model.sublayers), len(model.blocks))
    for label, halves in sets.items():
        for half in HALVES:
            run = Run(name, label, half, settings["ablation"])
            sweep_to(
                run.at(stores), settings, model, halves.first(half), hs.Zero(), hs.Split(ablated), _readouts(settings)
            )
            yield run


def _measure_controls(
    settings: Mapping[str, Any], model: LanguageModel, name: str, sets: Mapping[str, _Halves], stores: Path
) -> Iterator[Run]:
    """Measure the controls on the first confirmation prompts, with the components chosen on the exploration half."""
    chosen = {
        (label, readout): pick(settings, hs.open_results(_main(settings, name, label).at(stores)), readout).labels
        for label in sets
        for readout in settings["readouts"]
    }
    for label in sets:
        if labels := chosen[label, PRIMARY]:
            yield from _measure_wrong_content(settings, model, name, {label: sets[label]}, stores, labels)
            run = Run(name, label, "confirmation", "beyond")
            first = sets[label].first("confirmation", afterwards.PROMPTS)
            sweep_to(run.at(stores), settings, model, first, BeyondEmbeddings(), list(labels), _readouts(settings))
            yield run
            yield from _measure_other_ablations(settings, model, name, label, sets[label], stores, labels)
    noise, pushes, distance = (settings[each] for each in ("weight_noise", "pushes", "distance"))
    labels = chosen[noise["set"], PRIMARY]
    first = sets[noise["set"]].first("confirmation", noise["prompts"])
    for seed in noise["seeds"] if labels else ():
        run = Run(name, noise["set"], "confirmation", f"noise.{seed}")
        if not is_whole(run.at(stores), len(first)):
            sweep_to(
                run.at(stores),
                settings,
                with_noise(model, seed),
                first,
                hs.Zero(),
                hs.Split(labels),
                _readouts(settings),
            )
        yield run
    labels = last_third(chosen[pushes["set"], "logit"], len(model.blocks))
    if labels:
        push = Pushes(pushes["tokens"], pushes["directions"], pushes["seed"])
        run = Run(name, pushes["set"], "confirmation", "pushes")
        first = sets[pushes["set"]].first("confirmation", pushes["prompts"])
        sweep_to(run.at(stores), settings, model, first, push, labels, push.readouts(model.width))
        yield run
    labels = chosen[distance["set"], PRIMARY]
    if labels:
        run = Run(name, distance["set"], "confirmation", "distance")
        first = sets[distance["set"]].first("confirmation", distance["prompts"])
        _measure_distance(model, first, labels, run.at(stores))
        yield run


def _measure_wrong_content(
    settings: Mapping[str, Any],
    model: LanguageModel,
    name: str,
    sets: Mapping[str, _Halves],
    stores: Path,
    labels: tuple[str, ...],
) -> Iterator[Run]:
    wrong = settings["wrong_content"]
    for label, halves in sets.items():
        run = Run(name, label, "confirmation", "wrong_content")
        first = halves.first("confirmation", wrong["prompts"])
        sweep_to(run.at(stores), settings, model, first, WrongContent(wrong["seed"]), list(labels), _readouts(settings))
        yield run


def _measure_other_ablations(
    settings: Mapping[str, Any],
    model: LanguageModel,
    name: str,
    label: str,
    halves: _Halves,
    stores: Path,
    labels: tuple[str, ...],
) -> Iterator[Run]:
    others = settings["if_time_allows"]
    resample = others["resample"]
    for kind, ablation in (("mean", hs.Mean()), ("resample", hs.Resample(resample["patches"], resample["seed"]))):
        run = Run(name, label, "confirmation", kind)
        first = halves.first("confirmation", others[kind]["prompts"])
        sweep_to(run.at(stores), settings, model, first, ablation, hs.Split(list(labels)), _readouts(settings))
        yield run


def _main(settings: Mapping[str, Any], model: str, label: str) -> Run:
    return Run(model, label, "exploration", settings["ablation"])


def _readouts(settings: Mapping[str, Any]) -> list[Any]:
    return [_READOUTS[each] for each in settings["readouts"]]


def _measure_distance(model: LanguageModel, prompts: hs.prompts.PromptSet, labels: tuple[str, ...], path: Path) -> None:
    """Write the median kick of zero ablation, of its readout part and of wrong content, at the block after each."""
    if path.exists():
        return
    found = {}
    for name, ablation in (("whole", hs.Zero()), ("readout", Pushes(0, 0)), ("wrong_content", WrongContent())):
        measured = hs.analyses.distance(model, prompts, ablation, ablate=list(labels))
        blocks = measured["first_block"].values - measured["block"].values[0]
        kicks = [measured["kick"].values[:, place, block] for place, block in enumerate(blocks)]
        found[name] = float(np.median(kicks))
    path.write_text(json.dumps(found), "utf-8")
