"""Condense the measured results to the numbers of the page."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import xarray as xr

import hydrascope as hs
from hydrascope.measures import Bootstrap
from studies.context import estimator
from studies.context.runs import PRIMARY, READOUTS, Run, sources_of
from studies.context.verdict import judge
from studies.damping.estimator import Scale
from studies.stored import Numbers, bounds_of, by_name, origin_of, prompts_of, rounded

#: Differences of cells that the page tells; the second is subtracted.
CONTRASTS = (
    ("newline.1", "other.8"),
    ("other.32", "other.8"),
    ("other.128", "other.8"),
    ("other.512", "other.8"),
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


@dataclass(frozen=True)
class _Measured:
    """The results of one model and half, and the log p of the targets, by cell."""

    results: Mapping[str, xr.Dataset]
    log_p: Mapping[str, Sequence[float]]

    @classmethod
    def at(cls, stores: Mapping[Run, Path], model: str, half: str, cells: Iterable[str], kind: str = "main") -> Self:
        """Open the stored results of some cells."""
        paths = {(run.half, run.cell, run.kind): path for run, path in stores.items() if run.model == model}
        return cls(
            {cell: hs.open_results(paths[half, cell, kind]) for cell in cells},
            {cell: json.loads(paths[half, cell, "log_p"].read_text("utf-8")) for cell in cells},
        )

    def effects(self, readout: str, scale: Scale = "own", prompts: int | None = None) -> xr.Dataset:
        """Return the effects on the sentences that all cells have, or on the first of them."""
        return estimator.effects_of(self.results, self.log_p, readout, scale, prompts or self.sentences)

    @property
    def sentences(self) -> int:
        """The number of sentences that all cells have."""
        return min(each.sizes["prompt"] for each in self.results.values())


def _of_model(settings: Mapping[str, Any], stores: Mapping[Run, Path], name: str, bootstrap: Bootstrap) -> Numbers:
    cells = settings["cells"]
    explored = _Measured.at(stores, name, "exploration", cells["primary"])
    confirmed = _Measured.at(stores, name, "confirmation", cells["primary"])
    # Cells that are measured last of all may be left out.
    others = [cell for cell in cells["others"] if Run(name, "confirmation", cell, "log_p") in stores]
    every = _Measured.at(stores, name, "confirmation", [*cells["primary"], *others])
    first = confirmed.results[cells["primary"][0]]
    found: Numbers = {
        "origin": origin_of(first),
        "prompts": prompts_of(first),
        "exploration": {"number": explored.sentences},
        "primary": {},
    }
    for readout in READOUTS:
        effects = explored.effects(readout)
        weights = estimator.weights_of(effects)
        found["exploration"][readout] = bounds_of(estimator.change(effects, weights, bootstrap))
        found["primary"][readout] = _primary(settings, confirmed, readout, weights, bootstrap)
        if readout == PRIMARY:
            found["cells"] = _cells(every, weights, bootstrap)
            found["weight_noise"] = _noise(settings, stores, name, confirmed, weights, bootstrap)
    found["kick"] = {
        run.cell: {kind: rounded(each) for kind, each in json.loads(path.read_text("utf-8")).items()}
        for run, path in stores.items()
        if run.model == name and run.kind == "distance"
    }
    return found


def _primary(
    settings: Mapping[str, Any],
    measured: _Measured,
    readout: str,
    weights: xr.DataArray,
    bootstrap: Bootstrap,
) -> Numbers:
    """Return Δg between the cells of the primary claim in all readings."""
    rule = settings["confidence"]
    effects, clean = measured.effects(readout), measured.effects(readout, "clean")
    some = estimator.kept(effects, rule["most"])
    enough = len(some) >= rule["least_sentences"]
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


def _cells(measured: _Measured, weights: xr.DataArray, bootstrap: Bootstrap) -> Numbers:
    """Return the numbers of all cells on the sentences that all of them have, and differences of cells."""
    effects, labels = measured.effects(PRIMARY), [*measured.results]
    pairs = [pair for pair in CONTRASTS if {*pair} <= {*labels}]
    cells, contrasts = estimator.by_cell(effects, weights, pairs, bootstrap)
    return {
        "sentences": measured.sentences,
        "each": {
            cell: {
                **by_name(cells.sel(cell=cell, drop=True)),
                "log_p": rounded(float(effects["log_p"].sel(cell=cell).mean())),
            }
            for cell in labels
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
    measured: _Measured,
    weights: xr.DataArray,
    bootstrap: Bootstrap,
) -> Numbers:
    """Return Δg over all sentences with noise on the weights and without, on the same sentences."""
    count, primary = settings["if_time_allows"]["weight_noise"]["sentences"], settings["cells"]["primary"]
    kinds = dict.fromkeys(run.kind for run in stores if run.model == name and run.kind.startswith("noise."))
    noised = {kind: _Measured.at(stores, name, "confirmation", primary, kind) for kind in kinds}
    if not noised:
        return {}
    return {
        kind: bounds_of(estimator.change(each.effects(PRIMARY, prompts=count), weights, bootstrap))
        for kind, each in {"none": measured, **noised}.items()
    }


def _along(found: xr.DataArray, dim: str) -> dict[str, list[float | None]]:
    """Return the bounds of each entry along a dimension."""
    return {str(label): bounds_of(found.sel({dim: label})) for label in found[dim].values}
