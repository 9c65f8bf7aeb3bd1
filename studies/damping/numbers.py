"""Condense the measured results to the numbers of the page."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import hydrascope as hs
from hydrascope.measures import Bootstrap, effects_only, interval, split
from studies.damping import afterwards
from studies.damping.chosen import labels_of, last_third, pick_from
from studies.damping.estimator import (
    Chosen,
    Scale,
    Scored,
    both_ways,
    loudest,
    responses,
    share_of_blocks,
    share_without,
    shares,
    weigh,
)
from studies.damping.runs import PRIMARY, Run
from studies.damping.verdict import judge
from studies.stored import Numbers, bounds_of, by_name, origin_of, prompts_of, rounded


def condense(settings: Mapping[str, Any], stores: Mapping[Run, Path]) -> Numbers:
    """Return all numbers of the page.

    Args:
        settings: the study's settings.
        stores: the path of each result.
    """
    bootstrap = Bootstrap(**settings["intervals"])
    models = {}
    for model in (*settings["models"], *settings["controls"]):
        sets = dict.fromkeys(run.prompts for run in stores if run.model == model)
        own = {run: path for run, path in stores.items() if run.model == model}
        models[model] = {
            "origin": origin_of(hs.open_results(next(iter(own.values())))),
            "sets": {label: _of_set(settings, own, model, label, bootstrap) for label in sets},
        }
    return {"models": models, "verdict": judge(settings, models)}


def _of_set(
    settings: Mapping[str, Any], stores: Mapping[Run, Path], model: str, label: str, bootstrap: Bootstrap
) -> Numbers:
    explored, confirmed = (
        hs.open_results(stores[Run(model, label, half, settings["ablation"])])  # type: ignore[arg-type]
        for half in ("exploration", "confirmation")
    )
    found: Numbers = {
        "exploration": {**prompts_of(explored)},
        "confirmation": {**prompts_of(confirmed)},
    }
    chosen: dict[str, Chosen] = {}
    for readout in settings["readouts"]:
        chosen[readout] = _choose(settings, explored, model, readout)
        for name, scored_on in (("exploration", explored), ("confirmation", confirmed)):
            scored = (
                _scored_both_ways(settings, explored, model, readout)
                if name == "exploration"
                else _scored_all(confirmed, chosen[readout])
            )
            found[name][readout] = _shares(scored_on, readout, scored, bootstrap)
    found["chosen"] = {readout: list(each.labels) for readout, each in chosen.items()}
    found["components"] = _components(confirmed, chosen[PRIMARY], bootstrap)
    found |= _controls(settings, stores, model, label, chosen, bootstrap)
    if len(chosen[PRIMARY].labels) > 1:
        beyond = stores.get(Run(model, label, "confirmation", "beyond"))
        found["afterwards"] = _afterwards(confirmed, chosen[PRIMARY], found["components"], beyond, bootstrap)
    return found


def _choose(settings: Mapping[str, Any], explored: xr.Dataset, model: str, readout: str) -> Chosen:
    measured = responses(explored, readout)
    if fixed := settings["controls"].get(model, {}).get("chosen"):
        return weigh(measured, fixed)
    return pick_from(settings, measured, labels_of(explored), int(explored.attrs["depth"]))


def _scored_both_ways(settings: Mapping[str, Any], explored: xr.Dataset, model: str, readout: str) -> list[Scored]:
    halves = (explored.isel(prompt=slice(start, None, 2)) for start in (0, 1))
    first, second = (_choose(settings, half, model, readout) for half in halves)
    return both_ways(explored.sizes["prompt"], (first, second))


def _scored_all(results: xr.Dataset, chosen: Chosen) -> list[Scored]:
    return [Scored(np.ones(results.sizes["prompt"], bool), chosen)]


def _shares(results: xr.Dataset, readout: str, scored: Sequence[Scored], bootstrap: Bootstrap) -> Numbers | None:
    """Return the shares at both scales, and those that a few prompts can't decide; None without components."""
    if not any(each.chosen.labels for each in scored):
        return None
    labels = list(dict.fromkeys(label for each in scored for label in each.chosen.labels))
    chosen = _with_parts(results, labels)
    found: Numbers = {}
    scales: tuple[Scale, ...] = ("own", "clean")
    for scale in scales:
        found[scale] = by_name(shares(responses(chosen, readout, scale), scored, bootstrap))
    measured = responses(chosen, readout)
    top, held = loudest(measured, scored)
    found["loudest"] = {
        "prompts": len(top),
        "hold": rounded(held),
        "without": rounded(share_without(measured, scored, top)),
        "blocks": rounded(share_of_blocks(measured, scored)),
    }
    return found


def _afterwards(
    confirmed: xr.Dataset, chosen: Chosen, components: Numbers, beyond: Path | None, bootstrap: Bootstrap
) -> Numbers:
    """Return what the share rests on: depth, weights, single components, the clean readout, the tokens' embeddings."""
    measured = responses(_with_parts(confirmed, chosen.labels), PRIMARY)
    thirds = afterwards.by_depth(measured, chosen, int(confirmed.attrs["depth"]), bootstrap)
    left_out = afterwards.without_one(measured, chosen)
    least = min(left_out, key=lambda label: left_out[label])
    clean = confirmed["logit"].sel(readout=PRIMARY).values.astype(float)
    found: Numbers = {
        "depth": {name: by_name(each[["damping", "content", "share"]]) for name, each in thirds.items()},
        "equal_weights": bounds_of(afterwards.equally_weighted(measured, chosen, bootstrap)["share"]),
        "without_one": [least, rounded(left_out[least])],
        "median": {name: rounded(each) for name, each in afterwards.median_component(components).items()},
        "content_given_clean": rounded(afterwards.content_given(measured, chosen, clean)),
    }
    if beyond is not None:
        results = hs.open_results(beyond)
        without, less = afterwards.beyond_embeddings(measured, results, PRIMARY, chosen, bootstrap)
        found["beyond"] = {
            "number": results.sizes["prompt"],
            "content": bounds_of(without["content"]),
            "share": bounds_of(without["share"]),
            "less": bounds_of(less),
        }
    return found


def _with_parts(results: xr.Dataset, labels: Sequence[str]) -> xr.Dataset:
    """Select some ablations of a split with their parts."""
    kept = [str(label).split(":")[0] in labels for label in results["ablated"].values]
    return results.isel(ablated=kept)


def _components(results: xr.Dataset, chosen: Chosen, bootstrap: Bootstrap) -> Numbers:
    """Return damping and content repair of each chosen component, and in how many one is surely the larger."""
    if not chosen.labels:
        return {"each": {}, "prediction": 0, "content": 0}
    parts = split(_with_parts(results, chosen.labels), PRIMARY, bootstrap)
    damping, content = parts["damping"], parts["content_repair"]
    return {
        "each": {
            label: [rounded(float(part.sel(ablated=label, bound="estimate"))) for part in (damping, content)]
            for label in chosen.labels
        },
        "prediction": int((damping.sel(bound="low") > content.sel(bound="high")).sum()),
        "content": int((content.sel(bound="low") > damping.sel(bound="high")).sum()),
    }


def _controls(
    settings: Mapping[str, Any],
    stores: Mapping[Run, Path],
    model: str,
    label: str,
    chosen: Mapping[str, Chosen],
    bootstrap: Bootstrap,
) -> Numbers:
    """Return the numbers of the controls that were measured on a set."""
    here = {run.kind: path for run, path in stores.items() if run.prompts == label}
    main = hs.open_results(stores[Run(model, label, "confirmation", settings["ablation"])])
    found: Numbers = {}
    if "wrong_content" in here:
        found["wrong_content"] = _wrong_content(
            hs.open_results(here["wrong_content"]), main, chosen[PRIMARY], bootstrap
        )
    for kind in ("mean", "resample"):
        if kind in here:
            results = hs.open_results(here[kind])
            of_kind = _shares(results, PRIMARY, _scored_all(results, chosen[PRIMARY]), bootstrap)
            found[kind] = {"number": results.sizes["prompt"], **(of_kind or {})}
    noise = [hs.open_results(path) for kind, path in sorted(here.items()) if kind.startswith("noise.")]
    if noise:
        found["weight_noise"] = _weight_noise(noise, main, chosen[PRIMARY], bootstrap)
    if "pushes" in here:
        found["pushes"] = _pushes(hs.open_results(here["pushes"]), main, chosen["logit"], bootstrap)
    if "distance" in here:
        found["distance"] = {
            name: rounded(value) for name, value in json.loads(here["distance"].read_text("utf-8")).items()
        }
    return found


def _wrong_content(wrong: xr.Dataset, main: xr.Dataset, chosen: Chosen, bootstrap: Bootstrap) -> Numbers:
    """Return the slope with another prompt's content over that of the ablation, on the same prompts."""
    count = wrong.sizes["prompt"]
    measured = responses(_with_parts(main, chosen.labels), PRIMARY).isel(prompt=slice(count))
    data = effects_only(wrong, PRIMARY).data.sel(ablated=list(chosen.labels)).reset_coords(drop=True)
    swapped = measured.assign(doubled=-data["direct"], undone=data["total"] - data["direct"])
    found = shares(swapped, _scored_all(measured, chosen), bootstrap)
    return {"number": count, "slope": bounds_of(found["boost"]), "ratio": bounds_of(found["boost_ratio"])}


def _weight_noise(noise: Sequence[xr.Dataset], main: xr.Dataset, chosen: Chosen, bootstrap: Bootstrap) -> Numbers:
    """Return the share with noise on the weights, for each seed, and without, on the same prompts."""
    count = noise[0].sizes["prompt"]
    without = _with_parts(main, chosen.labels).isel(prompt=slice(count))

    def share(results: xr.Dataset) -> list[float | None]:
        scored = _scored_all(results, chosen)
        return bounds_of(shares(responses(results, PRIMARY), scored, bootstrap)["share"])

    return {"number": count, "without": share(without), "with": [share(each) for each in noise]}


def _pushes(pushed: xr.Dataset, main: xr.Dataset, chosen: Chosen, bootstrap: Bootstrap) -> Numbers:
    """Return damping of pushes along the target, other tokens and random directions, pooled over components."""
    labels = last_third(chosen.labels, int(main.attrs["depth"]))
    weights = xr.DataArray(
        [dict(zip(chosen.labels, chosen.weights, strict=True))[label] for label in labels], dims="ablated"
    )
    names = [str(name) for name in pushed["readout"].values]
    samples = {}
    for place, name in enumerate(names):
        kind = name.split(".")[0]
        along = pushed.isel(readout=place, patch=place).sel(ablated=labels).reset_coords(drop=True)
        total, direct = (along[each].astype(float) for each in ("total", "direct"))
        # Each direction in its own unit, so that directions of one kind can be summed.
        unit = float((direct**2).mean())
        for product, values in (("damped", (total - direct) * -direct), ("pushed", direct**2)):
            key = f"{kind} {product}"
            samples[key] = samples.get(key, 0) + (values * weights).sum("ablated") / unit
    kinds = list(dict.fromkeys(name.split(".")[0] for name in names))

    def statistic(means: xr.Dataset) -> xr.Dataset:
        damping = {kind: means[f"{kind} damped"] / means[f"{kind} pushed"] for kind in kinds}
        steps = pairwise(kinds)
        return xr.Dataset({**damping, **{f"{one} − {other}": damping[one] - damping[other] for one, other in steps}})

    found = interval(statistic, xr.Dataset(samples), bootstrap)
    return {"number": pushed.sizes["prompt"], "components": labels, **by_name(found)}
