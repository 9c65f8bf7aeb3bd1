"""Measure the study: attention on passages and facts, then controls on the sublayers that are chosen."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import hydrascope as hs
from hydrascope.ablations.ablation import Ablation
from hydrascope.measures import best_sublayer, per_prompt
from hydrascope.models.language_model import LanguageModel
from studies.damping.halves import Half, take
from studies.damping.weight_noise import with_noise
from studies.measuring import is_whole, sweep_to

#: The readouts that sublayers are chosen on.
CHOSEN_ON = ("logit", "difference")
_READOUTS: list[Any] = [hs.Logit(), hs.LogitDifference(), hs.Placebo(4)]


class Run(NamedTuple):
    """A stored result.

    Attributes:
        model, prompts, half: the model, the set of prompts and its half.
        kind: `attention`, `mlps`, or the control: `damping`, `noise.none`, `noise.0`, …, `distance`.
    """

    model: str
    prompts: str
    half: Half
    kind: str = "attention"

    def at(self, stores: Path) -> Path:
        """Return the place of the result."""
        ending = "json" if self.kind == "distance" else "zarr"
        return stores / f"{'-'.join(self).replace('/', '--')}.{ending}"


def measure(settings: Mapping[str, Any], prompts: Mapping[str, hs.prompts.PromptSet], stores: Path) -> dict[Run, Path]:
    """Measure, or resume, all runs of the study; return the paths of their results.

    Args:
        settings: the study's settings.
        prompts: the sets of prompts by the names in the settings.
        stores: the folder of the results.
    """
    stores.mkdir(parents=True, exist_ok=True)
    runs = [
        *(run for model in settings["models"] for run in _measure_passages(settings, model, prompts, stores)),
        *(run for model in settings["models"] for run in _measure_controls(settings, model, prompts, stores)),
        *(run for model in settings["models"] for run in _measure_facts(settings, model, prompts, stores)),
        *(run for model in settings["models"] for run in _measure_mlps(settings, model, prompts, stores)),
    ]
    return {run: run.at(stores) for run in runs}


def _measure_passages(
    settings: Mapping[str, Any], name: str, prompts: Mapping[str, hs.prompts.PromptSet], stores: Path
) -> Iterator[Run]:
    model = hs.load_model(name, dtype=settings["dtype"])
    halves: tuple[Half, ...] = ("exploration", "confirmation")
    for half in halves:
        run = Run(name, "passages", half)
        # Groups of patches are told apart where slopes are scored.
        keep = "patches" if half == "confirmation" else "means"
        some, ablate = _of(settings, prompts, run), settings["ablate"]["passages"]
        sweep_to(run.at(stores), settings, model, some, _resample(settings), ablate, _READOUTS, keep)
        yield run


def _measure_facts(
    settings: Mapping[str, Any], name: str, prompts: Mapping[str, hs.prompts.PromptSet], stores: Path
) -> Iterator[Run]:
    model, run = hs.load_model(name, dtype=settings["dtype"]), Run(name, "facts", "confirmation")
    some, ablate = _of(settings, prompts, run), settings["ablate"]["facts"]
    sweep_to(run.at(stores), settings, model, some, _resample(settings), ablate, _READOUTS)
    yield run


def _measure_controls(
    settings: Mapping[str, Any], name: str, prompts: Mapping[str, hs.prompts.PromptSet], stores: Path
) -> Iterator[Run]:
    """Measure damping, weight noise and distance at the sublayers that the exploration half chooses."""
    picks = list(dict.fromkeys(pick for pick in chosen(stores, name).values() if pick))
    if not picks:
        return
    model, beside, noise = hs.load_model(name, dtype=settings["dtype"]), settings["beside"], settings["weight_noise"]
    run = Run(name, "passages", "confirmation", "damping")
    some = _of(settings, prompts, run).limit(beside["damping"]["prompts"])
    sweep_to(run.at(stores), settings, model, some, hs.Zero(), hs.Split(picks), _READOUTS)
    yield run
    for seed in ("none", *noise["seeds"]):
        run = run._replace(kind=f"noise.{seed}")
        some = _of(settings, prompts, run).limit(noise["prompts"])
        if not is_whole(run.at(stores), len(some)):
            noised = model if seed == "none" else with_noise(model, seed)
            sweep_to(run.at(stores), settings, noised, some, _resample(settings), picks, _READOUTS)
        yield run
    run = run._replace(kind="distance")
    _measure_kick(
        settings, model, _of(settings, prompts, run).limit(settings["distance"]["prompts"]), picks, run.at(stores)
    )
    yield run


def _measure_mlps(
    settings: Mapping[str, Any], name: str, prompts: Mapping[str, hs.prompts.PromptSet], stores: Path
) -> Iterator[Run]:
    model, run = hs.load_model(name, dtype=settings["dtype"]), Run(name, "passages", "confirmation", "mlps")
    some = _of(settings, prompts, run).limit(settings["mlps"]["prompts"])
    sweep_to(run.at(stores), settings, model, some, _resample(settings), "mlp", _READOUTS)
    yield run


def chosen(stores: Path, model: str) -> dict[str, str | None]:
    """Return the attention sublayer that the exploration half chooses on each readout; None if it chooses none."""
    explored = hs.open_results(Run(model, "passages", "exploration").at(stores))
    return {readout: best_sublayer(per_prompt(explored, readout), "attn") for readout in CHOSEN_ON}


def _of(settings: Mapping[str, Any], prompts: Mapping[str, hs.prompts.PromptSet], run: Run) -> hs.prompts.PromptSet:
    halves = settings["halves"]
    some = take(prompts[run.prompts], run.half, halves[run.prompts], halves["explored_before"])
    return hs.prompts.PromptSet.of(some, f"{run.prompts}, {run.half}")


def _resample(settings: Mapping[str, Any]) -> Ablation:
    return hs.Resample(settings["patches"], settings["seed"])


def _measure_kick(
    settings: Mapping[str, Any],
    model: LanguageModel,
    prompts: hs.prompts.PromptSet,
    picks: Sequence[str],
    path: Path,
) -> None:
    """Write the median kick of resampling each chosen sublayer, at the block after it."""
    if path.exists():
        return
    measured = hs.analyses.distance(model, prompts, _resample(settings), ablate=list(picks))
    blocks = measured["first_block"].values - measured["block"].values[0]
    kicks = {
        pick: float(np.median(measured["kick"].values[:, place, block]))
        for place, (pick, block) in enumerate(zip(picks, blocks, strict=True))
    }
    path.write_text(json.dumps(kicks), "utf-8")
