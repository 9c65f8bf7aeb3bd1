"""Condense the measured reactions to the numbers of the page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import hydrascope as hs
from studies.repairers.contexts import FACTS, fields_in
from studies.repairers.measured import COMPARED, Measured
from studies.repairers.runs import Run, ahead
from studies.repairers.verdict import judge
from studies.stored import Numbers, origin_of


def condense(settings: Mapping[str, Any], stores: Mapping[Run, Path]) -> Numbers:
    """Return all numbers of the page.

    Args:
        settings: the study's settings.
        stores: the path of each run.
    """
    models = {}
    for name in settings["models"]:
        here = {run: path for run, path in stores.items() if run.model == name}
        models[name] = _of_model(settings, here)
    return {"models": models, "verdict": judge(settings, models)}


def _of_model(settings: Mapping[str, Any], stores: Mapping[Run, Path]) -> Numbers:
    confirmed = Measured.read(settings, stores, "confirmation")
    explored = Measured.read(settings, stores, "exploration")
    answers = fields_in(settings["prompts"][FACTS], "answer")
    by_answer = Measured.read(settings, stores, "confirmation", named=answers)
    first = next(path for run, path in stores.items() if run.kind == "reactions")
    one = confirmed.profiles[0]
    return {
        "origin": origin_of(hs.open_results(first)),
        "heads": dict(zip(one.ablated, (~np.isnan(one.of("full", "head")[0])).sum(-1).tolist(), strict=True)),
        "about": {run.context: _about(run, stores) for run in stores if run.kind == "answered"},
        "removed": confirmed.removed(),
        **confirmed.agreements(),
        "readings": {**confirmed.readings(), "by_answer": by_answer.both()},
        "apart": confirmed.apart(),
        "weight_noise": _noise(settings, stores),
        "exploration": {**explored.agreements(), "by_removed": explored.by_removed()} if explored.contexts else {},
    }


def _about(run: Run, stores: Mapping[Run, Path]) -> Numbers:
    """Return the half of a context, its prompts, those with the answer ahead, and the measured ones."""
    right = ahead(hs.open_results(stores[run]))
    measured = stores.get(run._replace(kind="reactions"))
    return {
        "half": run.half,
        "prompts": len(right),
        "right": int(right.sum()),
        "measured": hs.open_results(measured).sizes["prompt"] if measured else 0,
    }


def _noise(settings: Mapping[str, Any], stores: Mapping[Run, Path]) -> Numbers:
    """Return the agreement in some contexts, without and with noise on the weights.

    Returns:
        by seed, and without noise (`none`), what `Measured.both` gives; with noise also `same`, the mean correlation of
        a profile with that of the same prompts without noise.
    """
    declared = settings["weight_noise"]
    few = Measured.read(settings, stores, "confirmation", prompts=declared["prompts"])
    found: Numbers = {}
    for seed in declared["seeds"]:
        noised = Measured.read(settings, stores, "confirmation", f"noise.{seed}", declared["prompts"])
        clean = few.of(noised.contexts)
        found |= {"contexts": list(noised.contexts), "none": clean.both()}
        found[str(seed)] = {**noised.both(), "same": {kind: clean.correlation(noised, kind) for kind in COMPARED}}
    return found
