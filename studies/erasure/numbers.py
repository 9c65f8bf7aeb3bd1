"""Condense the measured responses to the numbers of the page."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from hydrascope.measures import Bootstrap, interval
from studies.damping.halves import HALVES
from studies.erasure.estimator import SETS, batches, shares, squares, terms_of
from studies.erasure.runs import Run
from studies.erasure.verdict import judge
from studies.stored import Numbers, bounds_of, by_name, rounded

#: Blocks of prompts whose median guards against loud prompts.
_BLOCKS = 20
#: The share of the prompts that count as loud.
_LOUD = 0.05


def condense(settings: Mapping[str, Any], stores: Mapping[Run, Path]) -> Numbers:
    """Return all numbers of the page.

    Args:
        settings: the study's settings.
        stores: the folder of each run.
    """
    bootstrap, noise = Bootstrap(**settings["intervals"]), settings["weight_noise"]
    models: Numbers = {}
    for run, folder in stores.items():
        of = models.setdefault(run.model, {"origin": _about(folder), "sets": {}, "weight_noise": {}})
        if run.kind == "main":
            of["sets"].setdefault(run.prompts, {})[run.half] = _numbers(settings, folder, bootstrap)
        else:
            of["weight_noise"][run.kind] = _share_of_first(settings, squares(folder), noise["prompts"], bootstrap)
    for model, of in models.items():
        main = stores[Run(model, noise["set"], HALVES[1])]
        of["weight_noise"]["none"] = _share_of_first(settings, squares(main), noise["prompts"], bootstrap)
        kick = stores[Run(model, settings["distance"]["set"], HALVES[1])] / "kick.json"
        of["kick"] = json.loads(kick.read_text("utf-8"))
        of["example"] = _example(main)
    return {"models": models, "verdict": judge(settings, models)}


def _about(folder: Path) -> Numbers:
    about: Numbers = json.loads((folder / "about.json").read_text("utf-8"))
    return about | {"energy": rounded(float(np.load(folder / "vocabulary.npz")["energy"]))}


def ways_of(settings: Mapping[str, Any]) -> dict[str, slice]:
    """Return the directions of each kind."""
    others, random = (settings["controls"][name] for name in ("others", "directions"))
    return {
        "target": slice(0, 1),
        "fifth": slice(1, 2),
        "others": slice(2, 2 + others),
        "random": slice(2 + others, 2 + others + random),
    }


def _numbers(settings: Mapping[str, Any], folder: Path, bootstrap: Bootstrap) -> Numbers:
    sums = squares(folder)
    together, kinds = sums.isel(part=-1), ways_of(settings)
    target = together.isel(way=0)
    found: Numbers = {
        "number": sums.sizes["prompt"],
        "hash": _about(folder)["prompts_hash"],
        "shares": {kind: by_name(shares(_sets(together.isel(way=ways)), bootstrap)) for kind, ways in kinds.items()},
        "push": {kind: by_name(_of_push(sums.isel(way=ways), bootstrap)) for kind, ways in kinds.items()},
        "taken": {
            kind: by_name(_taken(sums.isel(way=kinds[kind]), bootstrap)) for kind in ("target", "fifth", "others")
        },
        "damped": {kind: by_name(_damped(sums.isel(way=ways), bootstrap)) for kind, ways in kinds.items()},
        "beyond": by_name(_beyond(target, sums.isel(part=-1), bootstrap)),
        "written": bounds_of(_ratio(sums.isel(part=-1), "written both", "written total", bootstrap)),
        "vocabulary": {
            kind: {
                name: bounds_of(_mean_ratio(sums.isel(way=ways), f"vocabulary {name}", "vocabulary total", bootstrap))
                for name in ("both", "common", "profile")
            }
            for kind, ways in kinds.items()
        },
        "even": bounds_of(_mean_ratio(sums.isel(way=slice(0, 1)), "vocabulary even", "vocabulary total", bootstrap)),
        "each_pushed": {
            label: bounds_of(shares(_sets(target.isel(pushed=[place]).expand_dims("way")), bootstrap)["both"])
            for place, label in enumerate(_about(folder)["pushed"])
        },
        "each_late": {
            label: bounds_of(shares(_sets(sums.isel(part=place, way=slice(0, 1))), bootstrap)["both"])
            for place, label in enumerate(_about(folder)["late"])
        },
        "loudest": _loudest(target),
        "inflation": _inflation(folder),
    }
    return found


def _sets(sums: xr.Dataset) -> xr.Dataset:
    """Return sums over directions: [prompt, pushed], without sets that some direction lacks."""
    chosen = sums[["total", *SETS]].sum("way", skipna=False)
    return chosen.drop_vars([name for name in SETS if chosen[name].isnull().any()])


def _of_push(sums: xr.Dataset, bootstrap: Bootstrap) -> xr.Dataset:
    names = [f"push {name}" for name in ("total", *SETS)]
    chosen = sums[names].rename({name: name.removeprefix("push ") for name in names}).sum("way", skipna=False)
    chosen = chosen.drop_vars([name for name in SETS if chosen[name].isnull().any()])
    return shares(chosen.expand_dims("pushed"), bootstrap)


def _beyond(target: xr.Dataset, every: xr.Dataset, bootstrap: Bootstrap) -> xr.Dataset:
    """Return what `both` explain of the response more than of the push, and than of the clean writes."""
    chosen = target[["total", "both", "push total", "push both"]].assign(
        {name: every[name] for name in ("written total", "written both")}
    )

    def statistic(means: xr.Dataset) -> xr.Dataset:
        share = (means["both"] / means["total"]).mean("pushed")
        push, written = (means[f"{name} both"] / means[f"{name} total"] for name in ("push", "written"))
        return xr.Dataset({"push": share - push, "written": share - written})

    return interval(statistic, chosen.reset_coords(drop=True), bootstrap)


def _taken(sums: xr.Dataset, bootstrap: Bootstrap) -> xr.Dataset:
    """Return shares of the push that come off the pushed token: `taken`, `foreseen`, their difference and ratio."""
    chosen = sums[["taken", "foreseen", "push²"]].sum("way")

    def statistic(means: xr.Dataset) -> xr.Dataset:
        taken, foreseen = ((means[name] / means["push²"]).mean("pushed") for name in ("taken", "foreseen"))
        return xr.Dataset(
            {"taken": taken, "foreseen": foreseen, "own": taken - foreseen, "more_than_half": foreseen - taken / 2}
        ).assign(share=foreseen / taken)

    return interval(statistic, chosen, bootstrap)


def _damped(sums: xr.Dataset, bootstrap: Bootstrap) -> xr.Dataset:
    """Return the share that is taken back of a push's part along the common mode, and of the rest of it."""
    chosen = sums[[f"{part} {what}" for part in ("common", "rest") for what in ("damped", "pushed")]].sum("way")

    def statistic(means: xr.Dataset) -> xr.Dataset:
        shares = {
            part: (means[f"{part} damped"] / means[f"{part} pushed"]).mean("pushed") for part in ("common", "rest")
        }
        return xr.Dataset(shares)

    return interval(statistic, chosen, bootstrap)


def _ratio(sums: xr.Dataset, above: str, below: str, bootstrap: Bootstrap) -> xr.DataArray:
    samples = sums[[above, below]].reset_coords(drop=True)
    return interval(lambda means: (means[above] / means[below]).to_dataset(name="x"), samples, bootstrap)["x"]


def _mean_ratio(sums: xr.Dataset, above: str, below: str, bootstrap: Bootstrap) -> xr.DataArray:
    """Return a ratio of sums over prompts and directions, the mean over pushed components."""
    samples = sums[[above, below]].sum("way")
    return interval(
        lambda means: (means[above] / means[below]).mean("pushed").to_dataset(name="x"), samples, bootstrap
    )["x"]


def _loudest(target: xr.Dataset) -> Numbers:
    """Return the share of all squares that 5% of the prompts hold, and the share that is explained without them."""
    total, both = (target[name] / target["total"].mean("prompt") for name in ("total", "both"))
    loudness = total.sum("pushed").values
    count = max(1, round(_LOUD * len(loudness)))
    order = np.argsort(-loudness)

    def share(prompts: np.ndarray) -> float:
        some = [each.isel(prompt=prompts).mean("prompt") for each in (both, total)]
        return float((some[0] / some[1]).mean())

    blocks = [np.arange(start, len(loudness), _BLOCKS) for start in range(min(_BLOCKS, len(loudness)))]
    return {
        "prompts": count,
        "hold": rounded(float(loudness[order[:count]].sum() / loudness.sum())),
        "without": rounded(share(order[count:])),
        "blocks": rounded(float(np.median([share(block) for block in blocks]))),
    }


def _share_of_first(
    settings: Mapping[str, Any], sums: xr.Dataset, count: int, bootstrap: Bootstrap
) -> list[float | None]:
    some = sums.isel(prompt=slice(count), part=-1, way=ways_of(settings)["target"])
    return bounds_of(shares(_sets(some), bootstrap)["both"])


def _inflation(folder: Path) -> dict[str, float | None]:
    """Return the variance inflation of each term among all, the median over prompts, for the target's push."""
    common, found = np.load(folder / "vocabulary.npz")["common"], []
    names = ("common", "log_frequency", "logit", "token")
    for batch in batches(folder):
        for prompt in range(len(batch["index"])):
            terms = terms_of(batch, prompt, 0, common)
            found.append(np.diag(np.linalg.inv(np.corrcoef([terms[name] for name in names]))))
    return {name: rounded(float(each)) for name, each in zip(names, np.median(found, 0), strict=True)}


def _example(folder: Path) -> Numbers:
    """Return the mean response per unit of push over tokens in bins of log frequency, and the target's.

    Responses are those to pushing the target up by one logit. Each prompt's tokens are binned by their log frequency;
    `push` is what the push itself adds, `whole` are responses, `rest` what the common mode and the log frequency leave.
    """
    edges = np.arange(-22.0, 0.0, 1.0)
    sums = {name: np.zeros((len(edges) + 1, 2)) for name in ("push", "whole", "rest")}
    target = {name: np.zeros(2) for name in sums}
    weight = 0.0
    common = np.load(folder / "vocabulary.npz")["common"]
    for batch in batches(folder):
        for prompt in range(len(batch["index"])):
            terms = terms_of(batch, prompt, 0, common)
            place = int(np.argmax(terms["token"]))
            direct = batch["size"][prompt].astype(float) * float(terms["profile"][place])
            whole = batch["response"][prompt, 0].astype(float).sum(1)
            design = np.stack([np.ones(whole.shape[1]), terms["common"], terms["log_frequency"]], 1)
            others = np.arange(len(design)) != place
            fitted = np.linalg.lstsq(design[others], whole[:, others].T, rcond=None)[0]
            rest = whole - (design @ fitted).T
            at = np.digitize(terms["log_frequency"], edges)
            push = batch["size"][prompt].astype(float)[:, None] * terms["profile"]
            for name, values in (("push", push), ("whole", whole), ("rest", rest)):
                # Least squares of the response on the push: Σ response · push / Σ push².
                per_token = (values * direct[:, None]).sum(0)
                for each in np.unique(at[others]):
                    inside = others & (at == each)
                    sums[name][each] += per_token[inside].sum(), inside.sum() * (direct**2).sum()
                target[name] += per_token[place], (direct**2).sum()
            weight += float((direct**2).sum() * terms["log_frequency"][place])
    kept = sums["whole"][:, 1] > 0.002 * sums["whole"][:, 1].sum()
    centres = np.append(edges, edges[-1] + 1) - 0.5
    return {
        "log_frequency": [rounded(each) for each in centres[kept]],
        **{name: [rounded(a / b) for a, b in each[kept]] for name, each in sums.items()},
        "target": {name: rounded(a / b) for name, (a, b) in target.items()},
        "target_log_frequency": rounded(weight / target["whole"][1]),
    }
