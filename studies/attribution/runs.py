"""Measure the study: sweeps over doses, and estimates from gradients, each stored and resumed."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import hydrascope as hs
from hydrascope.models.language_model import LanguageModel
from hydrascope.storage.analysis_file import write_analysis
from studies.attribution.ablations import Doses
from studies.attribution.checks import check
from studies.attribution.gradients import predicted
from studies.attribution.sets import prompts_of, spread
from studies.damping.halves import Half
from studies.damping.weight_noise import with_noise
from studies.measuring import is_whole, sweep_to

_READOUTS: list[Any] = [hs.LogitDifference(), hs.Logit()]
Sets = Mapping[str, hs.prompts.PromptSet]


class Run(NamedTuple):
    """A stored result.

    Attributes:
        model, prompts, half: the model, the set of prompts and its half.
        kind: `zero` or `counterfactual`, a sweep; `noise.none` or `noise.0`, one with noise on the weights; `gim` or
            `atp_star`, estimates; `kick` or `checks`.
    """

    model: str
    prompts: str
    half: Half
    kind: str = "zero"

    def at(self, stores: Path) -> Path:
        """Return the path of the result."""
        suffix = {"gim": "npy", "atp_star": "npy", "checks": "json"}.get(self.kind, "zarr")
        return stores / f"{'-'.join(self).replace('/', '--')}.{suffix}"


def measure(settings: Mapping[str, Any], prompts: Sets, stores: Path) -> dict[Run, Path]:
    """Measure, or resume, all runs of the study; return the paths of their results.

    A set that a model doesn't solve is left out after its exploration half.

    Args:
        settings: the study's settings.
        prompts: the sets of prompts by the names in the settings.
        stores: the folder of the results.
    """
    stores.mkdir(parents=True, exist_ok=True)
    runs: list[Run] = []
    for name in settings["models"]:
        model = hs.load_model(name, dtype=settings["dtype"])
        for label in prompts:
            runs += _explore(settings, model, name, prompts, label, stores)
        for label in solved(settings, name, prompts, stores):
            runs += _confirm(settings, model, name, prompts, label, stores)
        runs += _control(settings, model, name, prompts, stores)
    return {run: run.at(stores) for run in runs}


def solved(settings: Mapping[str, Any], name: str, prompts: Sets, stores: Path) -> list[str]:
    """Return the sets whose exploration half a model solves."""
    return [
        label
        for label in prompts
        if solved_share(Run(name, label, "exploration").at(stores)) >= settings["solved"]["share"]
    ]


def solved_share(path: Path) -> float:
    """Return the share of a store's prompts in which the answer's logit is above the foil's."""
    return float((hs.open_results(path)["logit"].sel(readout="difference") > 0).mean())


def chosen(
    settings: Mapping[str, Any], run: Run, prompts: Sets, model: LanguageModel, count: int = 0
) -> hs.prompts.PromptSet:
    """Return the prompts of a run, or about `count` of them, as many of each template."""
    every = prompts_of(settings, prompts, run.prompts, run.half, model)
    return spread(every, count) if count and count < len(every) else every


def _explore(
    settings: Mapping[str, Any], model: LanguageModel, name: str, prompts: Sets, label: str, stores: Path
) -> Iterator[Run]:
    run = Run(name, label, "exploration")
    _sweep(settings, model, run, prompts, stores)
    yield run
    if solved_share(run.at(stores)) >= settings["solved"]["share"]:
        yield _estimates(settings, model, run._replace(kind="gim"), prompts, stores)


def _confirm(
    settings: Mapping[str, Any], model: LanguageModel, name: str, prompts: Sets, label: str, stores: Path
) -> Iterator[Run]:
    run = Run(name, label, "confirmation")
    _sweep(settings, model, run, prompts, stores)
    yield run
    yield _estimates(settings, model, run._replace(kind="gim"), prompts, stores)
    yield _estimates(settings, model, run._replace(kind="atp_star"), prompts, stores)
    twin = run._replace(kind="counterfactual")
    _sweep(settings, model, twin, prompts, stores, settings["counterfactual"]["prompts"])
    yield twin
    kick = run._replace(kind="kick")
    if not kick.at(stores).exists():
        some = chosen(settings, kick, prompts, model, settings["kick"]["prompts"])
        write_analysis(
            hs.analyses.distance(model, some, hs.Zero(), readouts=_READOUTS[:1], target=settings["target"]),
            kick.at(stores),
        )
    yield kick


def _control(
    settings: Mapping[str, Any], model: LanguageModel, name: str, prompts: Sets, stores: Path
) -> Iterator[Run]:
    """Repeat the sweep with noise on the weights, and in float64."""
    noise, checks = settings["weight_noise"], settings["checks"]
    for kind in ("none", *map(str, noise["seeds"])):
        run = Run(name, noise["set"], "confirmation", f"noise.{kind}")
        if not is_whole(run.at(stores), noise["prompts"]):
            noised = model if kind == "none" else with_noise(model, int(kind))
            _sweep(settings, noised, run, prompts, stores, noise["prompts"])
        yield run
    run = Run(name, checks["set"], "exploration", "checks")
    if not run.at(stores).exists():
        some = chosen(settings, run, prompts, model, checks["prompts"])
        run.at(stores).write_text(json.dumps(check(settings, model, some)), "utf-8")
    yield run


def _sweep(
    settings: Mapping[str, Any], model: LanguageModel, run: Run, prompts: Sets, stores: Path, count: int = 0
) -> None:
    whole = run.kind == "zero" and run.half == "confirmation"
    some = chosen(settings, run, prompts, model, count)
    if is_whole(run.at(stores), len(some)):
        return
    doses = tuple(settings["doses" if whole else "few_doses"])
    ablation = Doses("counterfactual" if run.kind == "counterfactual" else "zero", doses)
    readouts = _READOUTS if run.kind == "zero" else _READOUTS[:1]
    sweep_to(run.at(stores), settings, model, some, ablation, "layers", readouts, "patches")


def _estimates(settings: Mapping[str, Any], model: LanguageModel, run: Run, prompts: Sets, stores: Path) -> Run:
    path = run.at(stores)
    if not path.exists():
        some = chosen(settings, run, prompts, model, settings["gradients"][run.kind])
        np.save(path, predicted(settings, model, some, run.kind, hs.LogitDifference()))
        print(f"{path.name}: {len(some)} prompts", flush=True)
    return run
