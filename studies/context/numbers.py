"""Condense the measured results to the numbers of the page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import hydrascope as hs
from hydrascope.measures import Bootstrap
from studies.context import estimator
from studies.context.runs import READOUTS, Run, sources_of
from studies.context.verdict import judge
from studies.stored import Numbers, bounds_of, by_name, origin_of, prompts_of, rounded

#: Differences of cells that the page tells; the second is subtracted.
CONTRASTS = (
    ("newline.1", "other.8"),
    ("other.32", "other.8"),
    ("other.128", "other.8"),
    ("other.512", "other.8"),
    ("true.32", "true.8"),
    ("true.128", "true.8"),
    ("true.512", "true.8"),
    ("true.512", "other.512"),
)


def condense(settings: Mapping[str, Any], stores: Mapping[Run, Path]) -> Numbers:
    """Return all numbers of the page.

    Args:
        settings: the study's settings.
        stores: the path of each result.
    """
    bootstrap = Bootstrap(**settings["intervals"])
    models = {name: _of_model(settings, stores, name, bootstrap) for name in settings["models"]}
    return {"models": models, "verdict": judge(settings, models)}


def _of_model(settings: Mapping[str, Any], stores: Mapping[Run, Path], name: str, bootstrap: Bootstrap) -> Numbers:
    cells = settings["cells"]
    primary, others = cells["primary"], cells["others"]
    opened = {
        (run.half, run.cell): hs.open_results(path)
        for run, path in stores.items()
        if run.model == name and run.kind == "main"
    }
    explored, confirmed = (
        {cell: opened[half, cell] for cell in primary} for half in ("exploration", "confirmation")
    )  # fmt: skip
    few = min(each.sizes["prompt"] for each in explored.values())
    first = confirmed[primary[0]]
    found: Numbers = {
        "origin": origin_of(first),
        "prompts": prompts_of(first),
        "sublayers": first.sizes["ablated"] // len(dict.fromkeys(map(_part_of, first["ablated"].values))),
        "exploration": {"number": few},
        "primary": {},
    }
    for readout in READOUTS:
        effects = estimator.effects_of(explored, readout, prompts=few)
        weights = estimator.weights_of(effects)
        found["exploration"][readout] = bounds_of(estimator.change(effects, weights, bootstrap))
        found["primary"][readout] = _primary(settings, confirmed, readout, weights, bootstrap)
        if readout == next(iter(READOUTS)):
            every = {**confirmed, **{cell: opened["confirmation", cell] for cell in others}}
            found["cells"] = _cells(every, readout, weights, bootstrap)
            found["weight_noise"] = _noise(settings, stores, name, confirmed, weights, bootstrap)
    found["kick"] = {
        run.cell: {kind: rounded(each) for kind, each in json.loads(path.read_text("utf-8")).items()}
        for run, path in stores.items()
        if run.model == name and run.kind == "distance"
    }
    return found


def _part_of(label: Any) -> str:
    return str(label).partition(":")[2]


def _primary(
    settings: Mapping[str, Any],
    results: Mapping[str, xr.Dataset],
    readout: str,
    weights: xr.DataArray,
    bootstrap: Bootstrap,
) -> Numbers:
    """Return Δg between the cells of the primary claim in all readings."""
    rule = settings["confidence"]
    effects = estimator.effects_of(results, readout)
    some = estimator.kept(effects, rule["most"])
    enough = len(some) >= rule["least_sentences"]
    clean = estimator.effects_of(results, readout, "clean")
    of_some = effects.isel(prompt=some)
    readings = {
        "kept": bounds_of(estimator.change(of_some, weights, bootstrap)) if len(some) > 1 else [None] * 3,
        "adjusted": bounds_of(estimator.change_at_equal_confidence(effects, weights, bootstrap)),
        "all": bounds_of(estimator.change(effects, weights, bootstrap)),
    }
    used, chosen = ("kept", some) if enough else ("adjusted", np.arange(effects.sizes["prompt"]))
    of_chosen, clean = effects.isel(prompt=chosen), clean.isel(prompt=chosen)
    change = estimator.change if enough else estimator.change_at_equal_confidence
    damping = estimator.by_cell(of_chosen, weights, [], bootstrap)[0]["damping"]
    top, held = estimator.loudest(of_chosen, weights)
    each = estimator.change_of_each(of_chosen, bootstrap)
    sources = np.array(sources_of(settings, "confirmation"))[: effects.sizes["prompt"]]
    moved = (effects["log_p"].isel(cell=1) - effects["log_p"].isel(cell=0)).values
    return {
        "sentences": effects.sizes["prompt"],
        "kept": len(some),
        "used": used,
        "change": readings[used],
        "readings": readings,
        "log_p": [rounded(each) for each in (moved.mean(), moved.std(ddof=1))],
        "damping": _along(damping, "cell"),
        "clean": bounds_of(change(clean, weights, bootstrap)),
        "loudest": {
            "sentences": len(top),
            "hold": rounded(held),
            "without": rounded(estimator.change_without(of_chosen, weights, top)),
            "blocks": rounded(estimator.change_of_blocks(of_chosen, weights)),
        },
        "sources": {
            source: bounds_of(estimator.change(effects.isel(prompt=sources == source), weights, bootstrap))
            for source in dict.fromkeys(sources.tolist())
        },
        "equal_weights": bounds_of(estimator.change(of_chosen, weights * 0 + 1, bootstrap)),
        "each": _along(each, "ablated"),
    }


def _cells(results: Mapping[str, xr.Dataset], readout: str, weights: xr.DataArray, bootstrap: Bootstrap) -> Numbers:
    """Return the numbers of all cells on the sentences that all of them have, and differences of cells."""
    count = min(each.sizes["prompt"] for each in results.values())
    effects = estimator.effects_of(results, readout, prompts=count)
    pairs = [pair for pair in CONTRASTS if {*pair} <= {*results}]
    cells, contrasts = estimator.by_cell(effects, weights, pairs, bootstrap)
    return {
        "sentences": count,
        "each": {
            cell: {
                **by_name(cells.sel(cell=cell, drop=True)),
                "log_p": rounded(float(effects["log_p"].sel(cell=cell).mean())),
            }
            for cell in results
        },
        "contrasts": {
            f"{last} − {first}": by_name(contrasts.isel(contrast=place)) for place, (last, first) in enumerate(pairs)
        },
        "confidence": bounds_of(estimator.slope_on_confidence(effects, bootstrap)),
    }


def _noise(
    settings: Mapping[str, Any],
    stores: Mapping[Run, Path],
    name: str,
    results: Mapping[str, xr.Dataset],
    weights: xr.DataArray,
    bootstrap: Bootstrap,
) -> Numbers:
    """Return Δg over all sentences with noise on the weights and without, on the same sentences."""
    count, primary = settings["if_time_allows"]["weight_noise"]["sentences"], settings["cells"]["primary"]

    def changed(cells: Mapping[str, xr.Dataset]) -> list[float | None]:
        effects = estimator.effects_of(cells, next(iter(READOUTS)), prompts=count)
        return bounds_of(estimator.change(effects, weights, bootstrap))

    kinds: Sequence[str] = [run.kind for run in stores if run.model == name and run.kind.startswith("noise.")]
    runs = {
        kind: {cell: hs.open_results(stores[Run(name, "confirmation", cell, kind)]) for cell in primary}
        for kind in dict.fromkeys(kinds)
    }
    return {"none": changed(results), **{kind: changed(each) for kind, each in runs.items()}} if runs else {}


def _along(found: xr.DataArray, dim: str) -> dict[str, list[float | None]]:
    """Return the bounds of each entry along a dimension."""
    return {str(label): bounds_of(found.sel({dim: label})) for label in found[dim].values}
