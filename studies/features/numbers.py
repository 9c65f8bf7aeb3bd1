"""Condense the measured changes to the numbers of the page."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hydrascope.measures import Bootstrap
from studies.damping.halves import HALVES
from studies.features.directions import KINDS, Directions
from studies.features.estimator import SUBLAYERS, Samples, Weights, bounds, by_kind, content, damping, loudest
from studies.features.runs import SMALL, Run, directions_at
from studies.features.verdict import judge
from studies.stored import Numbers, rounded

#: Blocks of prompts whose median guards against loud prompts.
_BLOCKS = 20
#: The share of the prompts that count as loud.
_LOUD = 0.05

Estimate = Callable[[Samples, np.ndarray], np.ndarray]
#: The mean over directions of each kind, `[draw, depth, between, sublayer]`.
Means = dict[str, np.ndarray]


def condense(settings: Mapping[str, Any], stores: Mapping[Run, Path]) -> Numbers:
    """Return all numbers of the page.

    Args:
        settings: the study's settings.
        stores: the folder of each run.
    """
    intervals = settings["intervals"]
    bootstrap = Bootstrap(intervals["resamples"], intervals["confidence"], intervals["seed"])
    models = {}
    for name in settings["models"]:
        here = {run: folder for run, folder in stores.items() if run.model == name}
        models[name] = _of_model(settings, here, name, bootstrap)
    return {"models": models, "verdict": judge(settings, models)}


def _of_model(settings: Mapping[str, Any], stores: Mapping[Run, Path], name: str, bootstrap: Bootstrap) -> Numbers:
    sets = {
        half: {label: Samples.read(stores[Run(name, label, half)]) for label in settings["prompts"]} for half in HALVES
    }
    first = stores[Run(name, next(iter(settings["prompts"])), "confirmation")]
    directions = Directions.load(directions_at(first.parent, name))
    between = settings["between"]
    explored, confirmed = (_numbers(sets[half], directions, between, bootstrap) for half in HALVES)
    noised = {run.kind: folder for run, folder in stores.items() if run.kind.startswith("noise")}
    most = [_at_most(each) for each in sets["confirmation"].values()]
    return {
        "origin": json.loads((first / "about.json").read_text("utf-8")),
        "prompts": {label: len(each) for label, each in sets["confirmation"].items()},
        "directions": _about(directions),
        **confirmed,
        "exploration": {
            "prompts": {label: len(each) for label, each in sets["exploration"].items()},
            "difference": explored["difference"],
        },
        "loudest": loudest(most, directions.kind, share=_LOUD, blocks=_BLOCKS),
        "weight_noise": _weight_noise(settings, sets["confirmation"], noised, directions, bootstrap),
        "turned": _turned(settings, sets["confirmation"], stores, name, directions),
        "small": _small(settings, stores, name, directions, bootstrap),
    }


def _about(directions: Directions) -> Numbers:
    """Return what the directions are like."""
    kinds = {kind: directions.kind == kind for kind in KINDS}
    ratio = directions.last_variance[:, kinds["neurons"]] / directions.last_variance[:, kinds["matched"]]
    return {
        "blocks": directions.blocks.tolist(),
        "number": {kind: int(each.sum()) for kind, each in kinds.items()},
        "neurons": directions.neurons.tolist(),
        "active": [rounded(each) for each in np.quantile(directions.active, [0, 0.5, 1])],
        "alike": [rounded(each) for each in np.quantile(np.abs(directions.alike), [0.5, 1])],
        "variance": {
            kind: [rounded(each) for each in np.median(directions.variance[:, inside], 1)]
            for kind, inside in kinds.items()
        },
        "last_variance": [rounded(each) for each in np.quantile(ratio, [0.25, 0.5, 0.75])],
    }


def _numbers(sets: Mapping[str, Samples], directions: Directions, between: list[int], bootstrap: Bootstrap) -> Numbers:
    """Return the numbers of one half."""
    counts = {label: len(each) for label, each in sets.items()}
    kinds = {kind: int((directions.kind == kind).sum()) for kind in KINDS}
    both, prompts, rows = (
        Weights.draw(counts, kinds, len(directions.blocks), bootstrap, **how)
        for how in ({}, {"by_direction": False}, {"by_prompt": False})
    )
    last = {label: _at_most(each) for label, each in sets.items()}
    apart = _means(sets, both, directions, damping)
    every, brought = _mean_of_sets(apart), _mean_of_sets(_means(last, both, directions, content))
    less_drawn = [_mean_of_sets(_means(last, weights, directions, damping)) for weights in (prompts, rows)]
    more = every["neurons"] - every["matched"]
    one = between.index(1)

    def told(values: np.ndarray, place: int = -1) -> list[float | None]:
        """Return the bounds of the mean over depths and sublayers; by default with the most blocks in between."""
        return bounds(values[:, :, place].mean((1, 2)), bootstrap)

    return {
        "between": between,
        "curves": {kind: [told(each, place) for place in range(len(between))] for kind, each in every.items()},
        "difference": [told(more, place) for place in range(len(between))],
        "drawn": {
            name: told(each["neurons"] - each["matched"])
            for name, each in zip(("prompts", "directions"), less_drawn, strict=True)
        },
        "depths": [
            {
                kind: bounds(each[:, depth, -1].mean(1), bootstrap)
                for kind, each in (*every.items(), ("difference", more))
            }
            for depth in range(len(directions.blocks))
        ],
        "sublayers": {name: told(more[..., [place]]) for place, name in enumerate(SUBLAYERS)},
        "sets": {label: told(each["neurons"] - each["matched"]) for label, each in apart.items()},
        "over": {
            "isotropic": told(every["neurons"] - every["isotropic"]),
            "components": told(every["neurons"] - every["components"]),
            "one": told(more, one),
            "grows": told(more - more[:, :, [one]]),
            "content": told(brought["neurons"] - brought["matched"]),
        },
        "content": {kind: told(each) for kind, each in brought.items()},
        "larger": _larger(last, directions),
        "pushes": _pushes(last, directions),
    }


def _at_most(samples: Samples) -> Samples:
    """Return the changes at the places with the most blocks in between, which come last."""
    return samples.take(places=slice(-len(SUBLAYERS), None))


def _means(
    sets: Mapping[str, Samples], weights: Weights, directions: Directions, estimate: Estimate
) -> dict[str, Means]:
    """Return for each set the mean of a number over the directions of each kind."""
    return {
        label: by_kind(estimate(samples, weights.prompts[label]), directions.kind, weights.directions)
        for label, samples in sets.items()
    }


def _mean_of_sets(found: Mapping[str, Means]) -> Means:
    return {kind: np.mean([each[kind] for each in found.values()], 0) for kind in KINDS}


def _larger(sets: Mapping[str, Samples], directions: Directions) -> float | None:
    """Return the share of gate rows with a larger g than their matched direction."""
    g = np.mean([damping(each, np.ones((1, len(each))))[0].mean(1) for each in sets.values()], 0)
    return rounded(float((g[:, directions.kind == "neurons"] > g[:, directions.kind == "matched"]).mean()))


def _pushes(sets: Mapping[str, Samples], directions: Directions) -> list[float | None]:
    """Return quartiles of the ratio of Σ direct² of a gate row to that of its matched direction."""
    sums = sum((each.direct**2).mean(0).mean(1) for each in sets.values())
    ratio = sums[:, directions.kind == "neurons"] / sums[:, directions.kind == "matched"]
    return [rounded(each) for each in np.quantile(ratio, [0.25, 0.5, 0.75])]


def _weight_noise(
    settings: Mapping[str, Any],
    confirmed: Mapping[str, Samples],
    noised: Mapping[str, Path],
    directions: Directions,
    bootstrap: Bootstrap,
) -> Numbers:
    """Return the difference with the most blocks in between, on some prompts, with noise on the weights."""
    declared = settings["weight_noise"]
    runs = {"none": _at_most(confirmed[declared["set"]]).take(slice(declared["prompts"]))}
    runs |= {kind: Samples.read(folder) for kind, folder in noised.items()}
    kinds = {kind: int((directions.kind == kind).sum()) for kind in KINDS}
    found = {}
    for kind, samples in runs.items():
        drawn = Weights.draw({"one": len(samples)}, kinds, len(directions.blocks), bootstrap)
        means = _means({"one": samples}, drawn, directions, damping)["one"]
        found[kind] = bounds((means["neurons"] - means["matched"]).mean((1, 2, 3)), bootstrap)
    return found


def _small(
    settings: Mapping[str, Any], stores: Mapping[Run, Path], name: str, directions: Directions, bootstrap: Bootstrap
) -> Numbers:
    """Return the difference with the most blocks in between, where a small share of each part is removed."""
    sets = {label: Samples.read(stores[Run(name, label, "confirmation", "small")]) for label in settings["prompts"]}
    kinds = {kind: int((directions.kind == kind).sum()) for kind in KINDS}
    counts = {label: len(each) for label, each in sets.items()}
    drawn = Weights.draw(counts, kinds, len(directions.blocks), bootstrap)
    means = _mean_of_sets(_means(sets, drawn, directions, damping))
    found = {kind: each.mean((1, 2, 3)) for kind, each in means.items()}
    return {
        "dose": SMALL,
        "difference": bounds(found["neurons"] - found["matched"], bootstrap),
        **{kind: bounds(each, bootstrap) for kind, each in found.items()},
    }


def _turned(
    settings: Mapping[str, Any],
    confirmed: Mapping[str, Samples],
    stores: Mapping[Run, Path],
    name: str,
    directions: Directions,
) -> Numbers:
    """Return the energy of the answer's part that keeps its sign when the push is turned, over that of the rest."""
    declared = settings["turned"]
    down = _at_most(confirmed[declared["set"]]).take(slice(declared["prompts"]))
    up = Samples.read(stores[Run(name, declared["set"], "confirmation", "turned")])
    even, odd = down.total + up.total, (down.total - down.direct) - (up.total - up.direct)
    kinds = {kind: directions.kind == kind for kind in KINDS}
    shares = {kind: float((even[..., one] ** 2).sum() / (odd[..., one] ** 2).sum()) for kind, one in kinds.items()}
    return {"prompts": len(up), "even": {kind: rounded(each) for kind, each in shares.items()}}
