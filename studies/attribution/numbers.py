"""Condense the measured results to the numbers of the page."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import hydrascope as hs
from hydrascope.measures import Bootstrap, Sigma, interval
from hydrascope.storage.analysis_file import read_analysis
from studies.attribution.estimator import (
    RESPONSES,
    brakes_left,
    by_t,
    changes,
    in_blocks,
    left_by,
    pooled,
    predicted_by_doses,
    predicted_by_lens,
    shares,
)
from studies.attribution.runs import Run, solved_share
from studies.attribution.sets import TEMPLATES, blocks_of
from studies.attribution.verdict import judge
from studies.damping.halves import HALVES
from studies.stored import Numbers, bounds_of, by_name, origin_of, prompts_of, rounded

#: Templates of a set, and parts of the facts.
_BLOCKS = 12
#: Blocks of prompts whose median guards against loud prompts.
_LOUD_BLOCKS = 20
#: The share of the prompts that count as loud.
_LOUD = 0.05
#: The sublayers whose errors are listed.
_LISTED = 6

Each = Mapping[str, xr.Dataset]


def condense(settings: Mapping[str, Any], stores: Mapping[Run, Path]) -> Numbers:
    """Return all numbers of the page.

    Args:
        settings: the study's settings.
        stores: the path of each result.
    """
    models = {name: _of_model(settings, stores, name) for name in settings["models"]}
    return {"models": models, "verdict": judge(settings, models)}


def _of_model(settings: Mapping[str, Any], stores: Mapping[Run, Path], name: str) -> Numbers:
    bootstrap = Bootstrap(**settings["intervals"])
    share = {
        label: {
            half: rounded(solved_share(stores[run])) for half in HALVES if (run := Run(name, label, half)) in stores
        }
        for label in settings["prompts"]
    }
    kept = [
        label
        for label, of in share.items()
        if len(of) == len(HALVES) and min(of.values()) >= settings["solved"]["share"]  # type: ignore[type-var]
    ]
    explored, confirmed = (
        {label: hs.open_results(stores[Run(name, label, half)]) for label in kept} for half in HALVES
    )
    before, found = (_all_found(settings, each, "difference", "clean") for each in (explored, confirmed))
    at_own, on_logit = (
        _all_found(settings, confirmed, *reading) for reading in (("difference", "own"), ("logit", "clean"))
    )
    largest = list(_energy(settings, before))[: settings["largest"]["count"]]
    brakes = {
        label: [str(each) for each in of["ablated"].values[of["unembed"].mean("prompt").values < 0]]
        for label, of in before.items()
    }
    read, both = partial(_reading, settings, bootstrap), ("lens", "atp")
    return {
        "origin": origin_of(next(iter(confirmed.values()))),
        "solved": share,
        "kept": kept,
        "sets": {label: prompts_of(each) for label, each in confirmed.items()},
        "largest": largest,
        "exploration": read(before, both),
        "difference": read(found, (*both, "ig"), brakes),
        "own_scale": read(at_own, both),
        "logit": read(on_logit, both),
        "without_largest": read(found, both, without=largest),
        "loudest": _loudest(settings, found),
        "sublayers": _sublayers(settings, found),
        "imbalance": max(
            float(_left(settings, of, "atp")["imbalance"].max())
            for each in (found, at_own, on_logit)
            for of in each.values()
        ),
        "counterfactual": _counterfactual(settings, stores, name, kept, bootstrap),
        **_compared(settings, stores, name, before, found, bootstrap),
        "kappa": _kappa(settings, stores, name, found, bootstrap),
        "weight_noise": _noise(settings, stores, name, bootstrap),
        "checks": json.loads(stores[Run(name, settings["checks"]["set"], "exploration", "checks")].read_text("utf-8")),
    }


def _all_found(settings: Mapping[str, Any], results: Each, readout: str, sigma: Sigma) -> dict[str, xr.Dataset]:
    return {label: _found(settings, each, readout, sigma) for label, each in results.items()}


def _found(settings: Mapping[str, Any], results: xr.Dataset, readout: str, sigma: Sigma) -> xr.Dataset:
    few = results.sizes["patch"] == len(settings["few_doses"])
    return changes(results, readout, sigma, settings["few_doses" if few else "doses"])


def _left(settings: Mapping[str, Any], found: xr.Dataset, estimator: str) -> xr.Dataset:
    if estimator == "lens":
        return left_by(found, predicted_by_lens(found))
    return left_by(found, predicted_by_doses(found, settings["steps"][estimator], settings["epsilon"]))


def _reading(
    settings: Mapping[str, Any],
    bootstrap: Bootstrap,
    found: Each,
    estimators: Sequence[str],
    brakes: Mapping[str, Sequence[str]] | None = None,
    without: Sequence[str] = (),
) -> Numbers:
    """Return the shares of each estimator in one reading of the runs, for all sets together and each alone.

    Args:
        settings: the study's settings.
        bootstrap: how bounds are drawn.
        found: the changes of terms of each set.
        estimators: the estimators.
        brakes: for each set the sublayers whose responses are told apart.
        without: sublayers whose ablations are left out.
    """
    numbers: Numbers = {}
    for estimator in estimators:
        sums = {}
        for label, each in found.items():
            left = _left(settings, each, estimator)
            if brakes:
                steps = settings["steps"].get(estimator, [])
                left["brakes"] = left["error"] * brakes_left(each, steps, settings["epsilon"], brakes[label])
            sums[label] = left.isel(ablated=~np.isin(left["ablated"].values.astype(str), list(without)))
        together = _together(sums)
        numbers[estimator] = {
            "pooled": by_name(interval(shares, together, bootstrap)),
            "t": [rounded(each) for each in by_t(together, bootstrap.confidence)],
            "sets": {label: by_name(interval(shares, _units(label, each), bootstrap)) for label, each in sums.items()},
        }
    return numbers


def _together(sums: Each) -> xr.Dataset:
    """Return sums of squares of all sets by block."""
    return pooled({label: in_blocks(each, blocks_of(each.sizes["prompt"], _BLOCKS)) for label, each in sums.items()})


def _units(label: str, sums: xr.Dataset) -> xr.Dataset:
    """Return sums of squares of one set by template, or by prompt where there are no templates."""
    prompts = sums.sizes["prompt"]
    return in_blocks(sums, blocks_of(prompts, _BLOCKS if label in TEMPLATES else prompts))


def _energy(settings: Mapping[str, Any], found: Each) -> dict[str, float]:
    """Return each sublayer's share of AtP's squared error, the largest first, the mean over sets."""
    of_sets = []
    for each in found.values():
        energy = _left(settings, each, "atp")["error²"].mean("prompt")
        of_sets.append(energy / energy.sum())
    mean = sum(of_sets) / len(of_sets)
    order = np.argsort(-mean.values)
    return {str(mean["ablated"].values[place]): float(mean.values[place]) for place in order}


def _sublayers(settings: Mapping[str, Any], found: Each) -> Numbers:
    """Return the sublayers with the largest errors: their share of all, and the responses' share of theirs."""
    lefts = [_left(settings, each, "atp").mean("prompt") for each in found.values()]
    listed = list(_energy(settings, found).items())[:_LISTED]
    return {
        label: {
            "share": rounded(share),
            "responses": rounded(np.mean([_responses(each.sel(ablated=label)) for each in lefts])),
            "given back": rounded(np.mean([_given_back(each.sel(ablated=label)) for each in lefts])),
        }
        for label, share in listed
    }


def _responses(means: xr.Dataset) -> float:
    return float(means["product"].sel(term=RESPONSES).sum() / means["error²"].sum())


def _given_back(means: xr.Dataset) -> float:
    return float(means["given back"] / means["error²"])


def _loudest(settings: Mapping[str, Any], found: Each) -> Numbers:
    """Return for each set what the 5% of prompts with the largest errors hold, and the share without them."""
    numbers: Numbers = {}
    for label, each in found.items():
        for estimator in ("lens", "atp"):
            left = _left(settings, each, estimator).sum("ablated")
            loudness = left["error²"].values
            count = max(1, round(_LOUD * len(loudness)))
            order = np.argsort(-loudness)
            blocks = [
                left.isel(prompt=slice(start, None, _LOUD_BLOCKS)) for start in range(min(_LOUD_BLOCKS, len(order)))
            ]
            numbers.setdefault(estimator, {})[label] = {
                "prompts": count,
                "hold": rounded(loudness[order[:count]].sum() / loudness.sum()),
                "without": rounded(_responses(left.isel(prompt=order[count:]).sum("prompt"))),
                "blocks": rounded(np.median([_responses(block.sum("prompt")) for block in blocks])),
            }
    return numbers


def _counterfactual(
    settings: Mapping[str, Any], stores: Mapping[Run, Path], name: str, kept: Sequence[str], bootstrap: Bootstrap
) -> Numbers:
    results = {label: hs.open_results(stores[Run(name, label, "confirmation", "counterfactual")]) for label in kept}
    found = _reading(settings, bootstrap, _all_found(settings, results, "difference", "clean"), ("atp",))["atp"]
    return {"number": {label: each.sizes["prompt"] for label, each in results.items()}, **found}


def _compared(
    settings: Mapping[str, Any],
    stores: Mapping[Run, Path],
    name: str,
    before: Each,
    found: Each,
    bootstrap: Bootstrap,
) -> Numbers:
    """Return the shares of estimates from gradients, and each estimator's squared error against AtP's."""
    atp = {label: _left(settings, each, "atp") for label, each in found.items()}
    numbers: Numbers = {"estimators": {}, "against_atp": {}, "factor": {}}
    ig = {label: _left(settings, each, "ig") for label, each in found.items()}
    numbers["against_atp"]["ig"] = _against(ig, atp, bootstrap)
    for method in ("atp_star", "gim"):
        left, same = {}, {}
        for label, each in found.items():
            predicted = np.load(stores[Run(name, label, "confirmation", method)])
            some = _spread(each, predicted.shape[1])
            factor = 1.0
            if method == "gim":
                factor = _factor(before[label], np.load(stores[Run(name, label, "exploration", method)]))
                numbers["factor"][label] = rounded(factor)
            left[label] = left_by(some, some["change"].sel(dose=0).copy(data=factor * predicted))
            same[label] = _spread(atp[label], predicted.shape[1])
        numbers["estimators"][method] = {
            "number": {label: each.sizes["prompt"] for label, each in left.items()},
            "pooled": by_name(interval(shares, _together(left), bootstrap)),
            "atp": by_name(interval(shares, _together(same), bootstrap)),
        }
        numbers["against_atp"][method] = _against(left, same, bootstrap)
    return numbers


def _spread(found: xr.Dataset, count: int) -> xr.Dataset:
    """Return the prompts at equal distances, as `sets.spread` chooses them."""
    return found.isel(prompt=slice(None, None, max(1, found.sizes["prompt"] // count))).isel(prompt=slice(count))


def _factor(found: xr.Dataset, predicted: np.ndarray) -> float:
    """Return the factor by which estimates fit totals best."""
    total = _spread(found, predicted.shape[1])["total"].sel(dose=0).values
    estimate = predicted.sum(0)
    return float((total * estimate).sum() / (estimate**2).sum())


def _against(left: Each, atp: Each, bootstrap: Bootstrap) -> Numbers:
    """Return an estimate's squared error relative to AtP's: `ratio`, and for each term what is mended of it.

    `mended` by term is the part of AtP's squared error that this term explained and no longer does, each relative to
    AtP's whole squared error; the parts add up to 1 − ratio.
    """
    both = xr.merge(
        [
            _together(left)[["error²", "product"]],
            _together(atp)[["error²", "product"]].rename({"error²": "atp error²", "product": "atp product"}),
        ],
        compat="override",
    )

    def statistic(means: xr.Dataset) -> xr.Dataset:
        mended = (means["atp product"] - means["product"]) / means["atp error²"]
        parts = {str(term): mended.sel(term=term, drop=True) for term in mended["term"].values}
        return xr.Dataset({"ratio": means["error²"] / means["atp error²"], **parts}).mean("set")

    return by_name(interval(statistic, both, bootstrap))


def _kappa(
    settings: Mapping[str, Any], stores: Mapping[Run, Path], name: str, found: Each, bootstrap: Bootstrap
) -> Numbers:
    """Return AtP's relative squared error, and the responses' share of it, by thirds of the kick."""
    thirds, medians = {}, {}
    for label, each in found.items():
        kick = read_analysis(stores[Run(name, label, "confirmation", "kick")], "kick", "the study")
        first = kick["first_block"].values - kick["block"].values[0]
        at = np.take_along_axis(kick["kick"].values, first[None, :, None], 2)[..., 0]
        left = _spread(_left(settings, each, "atp"), len(at))
        edges = np.quantile(at, [1 / 3, 2 / 3])
        third = xr.DataArray(np.digitize(at, edges), dims=("prompt", "ablated"))
        parts = [left.drop_vars("imbalance").where(third == number, 0) for number in range(3)]
        thirds[label] = xr.concat(parts, "third")
        medians[label] = rounded(np.median(at))

    def statistic(means: xr.Dataset) -> xr.Dataset:
        size = means["error²"] / means["total²"]
        responses = means["product"].sel(term=RESPONSES).sum("term") / means["error²"]
        both = xr.Dataset({"size": size, "responses": responses}).mean("set")
        return both.assign(more=both["size"].isel(third=2) - both["size"].isel(third=0))

    bounds = interval(statistic, _together(thirds), bootstrap)
    return {
        "number": settings["kick"]["prompts"],
        "median": medians,
        "size": [bounds_of(bounds["size"].isel(third=third)) for third in range(3)],
        "responses": [bounds_of(bounds["responses"].isel(third=third)) for third in range(3)],
        "more": bounds_of(bounds["more"]),
    }


def _noise(settings: Mapping[str, Any], stores: Mapping[Run, Path], name: str, bootstrap: Bootstrap) -> Numbers:
    noise = settings["weight_noise"]
    numbers: Numbers = {}
    for kind in ("none", *map(str, noise["seeds"])):
        results = hs.open_results(stores[Run(name, noise["set"], "confirmation", f"noise.{kind}")])
        found = _found(settings, results, "difference", "clean")
        numbers[kind] = {
            estimator: bounds_of(
                interval(shares, _units(noise["set"], _left(settings, found, estimator)), bootstrap)["responses"]
            )
            for estimator in ("lens", "atp")
        }
    return numbers
