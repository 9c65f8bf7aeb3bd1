"""Condense the stored results of the study of brakes to the numbers of its page."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import hydrascope as hs
from hydrascope.measures import Bootstrap, backup_scores, interval, simultaneous
from hydrascope.measures.restoration import drop_unbounded
from hydrascope.storage.analysis_file import read_analysis
from studies.brakes.runs import RUNS, Stores, mean_removed
from studies.brakes.templates import HALVES

#: A reaction is named if it is surely above this share of what the seed removes.
NOTABLE = 0.05
#: The scores on trial, of those that `backup_scores` gives.
SCORES = ("coax", "ratio", "conditional", "single", "coupling", "|direct|", "depth", "synergy")
#: The number of reactions that are listed.
LISTED = 8


def condense(settings: dict[str, Any], stores: dict[str, Stores]) -> dict[str, Any]:
    """Return the numbers of all models.

    Args:
        settings: the study's settings.
        stores: from `runs.measure`.
    """
    bootstrap = Bootstrap(**settings["intervals"])
    return {"models": {name: condense_model(settings, each, bootstrap) for name, each in stores.items()}}


def condense_model(settings: dict[str, Any], stores: Stores, bootstrap: Bootstrap) -> dict[str, Any]:
    """Return the numbers of one model."""
    explored = hs.open_results(stores.explored)
    removed = mean_removed(explored)
    claimed = [seed for seed in stores.seeds if removed[seed] >= settings["seeds"]["least_removed"]]
    pairs = {run: reactions(hs.open_results(path)) for run, path in stores.reactions.items()}
    confirmed = pairs["zero"].isel(pair=np.isin(pairs["zero"]["seed"], claimed))
    outcomes = {seed: _outcome(pairs["zero"], seed, bootstrap) for seed in claimed}
    removing = [seed for seed, each in outcomes.items() if each["removed"][1] > 0]
    return {
        "prompts": {run: int(each.attrs["count"]) for run, each in pairs.items()},
        "answered": _answered(hs.open_results(stores.reactions["zero"])),
        "seeds": {seed: {"explored": removed[seed], **each} for seed, each in outcomes.items()},
        "removing": removing,
        "scored": list(stores.seeds),
        "inert": {label: {"explored": removed[label], "kick": _kick(stores.kicks, label)} for label in stores.inert},
        "share": {run: _share(_of(pairs[run], claimed), removed, "head", bootstrap) for run in ("explored", *RUNS)},
        "share_with_mlps": _share(confirmed, removed, "", bootstrap),
        "share_without": _share_without(confirmed, removed, bootstrap),
        "named": _named(confirmed, removed, bootstrap),
        "drive": _drive(_of(confirmed, removing), removed, bootstrap),
        "boost": _boost(confirmed, _of(pairs["boost"], claimed), bootstrap),
        "inert_reactions": _inert(pairs["inert"], confirmed, removed, bootstrap),
        "scores": _scores(stores.scores, bootstrap),
        "points": _points(confirmed, removed),
    }


def reactions(results: xr.Dataset) -> xr.Dataset:
    """Return the reactions of a run, means over the prompts of each template.

    Args:
        results: of each seed alone, `head.9.6`, and with each candidate frozen, `head.9.6|head.10.0`.

    Returns:
        in the readout's unit: `reaction` [prompt, pair], what the candidate of the pair brings when its seed is
        ablated; `removed` and `lost` [prompt, pair], of the seed; the coordinates `seed`, `candidate` and `kind`. A
        prompt is a template.
    """
    effects = results[["total", "direct"]].isel(readout=0).mean("patch", dtype=np.float64).compute()
    effects = effects.groupby(xr.DataArray(templates(results), dims="prompt", name="template")).mean()
    effects = effects.rename(template="prompt")
    frozen = [str(label) for label in effects["ablated"].values if "|" in str(label)]
    seeds, candidates = (list(each) for each in zip(*(label.split("|") for label in frozen), strict=True))
    alone, apart = (effects.sel(ablated=labels).rename(ablated="pair").drop_vars("pair") for labels in (seeds, frozen))
    found = xr.Dataset(
        {
            "reaction": alone["total"] - apart["total"],
            "removed": -alone["direct"],
            "lost": -alone["total"],
        }
    ).transpose("prompt", "pair")
    kinds = [hs.Component.parse(label).kind for label in candidates]
    found = found.drop_vars([name for name in found.coords if name != "prompt"]).drop_vars("prompt")
    return found.assign_coords(
        seed=("pair", np.array(seeds, object)),
        candidate=("pair", np.array(candidates, object)),
        kind=("pair", np.array(kinds, object)),
    ).assign_attrs(count=results.sizes["prompt"])


def templates(results: xr.Dataset) -> np.ndarray:
    """Return the number of each prompt's template, among those of its half.

    Raises:
        ValueError: a prompt has no template.
    """
    half = str(results.attrs["prompts"]).removeprefix("ioi-")
    patterns = [_pattern(template) for template in HALVES[half]]
    found = []
    for text in map(str, results["text"].values):
        number = next((number for number, pattern in enumerate(patterns) if pattern.search(text)), None)
        if number is None:
            raise ValueError(f"{text!r} is of no template")
        found.append(number)
    return np.array(found)


def _pattern(template: str) -> re.Pattern[str]:
    """Return a pattern of the texts of a template."""
    parts = re.split(r"{\w+}", template)
    return re.compile(r"\w+".join(map(re.escape, parts)) + r"\s*$")


def _of(pairs: xr.Dataset, seeds: Sequence[str]) -> xr.Dataset:
    return pairs.isel(pair=np.isin(pairs["seed"].values.astype(str), list(seeds)))


def _answered(results: xr.Dataset) -> float:
    """Return the share of prompts in which the answer's logit is above the foil's."""
    return float((results["logit"].isel(readout=0) > 0).mean())


def _outcome(pairs: xr.Dataset, seed: str, bootstrap: Bootstrap) -> dict[str, Any]:
    """Return what a seed removes and loses, and the share restored."""
    one = pairs.isel(pair=int(np.flatnonzero(pairs["seed"].values.astype(str) == seed)[0]))
    samples = one[["removed", "lost"]].reset_coords(drop=True)
    found = interval(lambda means: means.assign(restored=1 - means["lost"] / means["removed"]), samples, bootstrap)
    found["restored"] = drop_unbounded(found["restored"], found["removed"])
    return {str(name): _listed(found[name]) for name in ("removed", "lost", "restored")}


def _kick(path: Path, label: str) -> float:
    kicks = read_analysis(path, "kick", "the study").sel(ablated=label)
    return float(kicks["kick"].sel(block=int(kicks["first_block"])).median("prompt"))


def _share(pairs: xr.Dataset, removed: dict[str, float], kind: str, bootstrap: Bootstrap) -> list[float]:
    """Return the share of all positive reactions that brakes carry, with bounds.

    Args:
        pairs: the reactions.
        removed: what each component adds to the answer in the clean run, on the exploration prompts.
        kind: the kind of candidates; empty for all.
    """
    chosen = pairs.isel(pair=pairs["kind"].values.astype(str) == kind) if kind else pairs
    brakes = xr.DataArray(_brakes(chosen, removed), dims="pair")

    def statistic(means: xr.Dataset) -> xr.Dataset:
        positive = means["reaction"].clip(0)
        return (positive.where(brakes, 0).sum("pair") / positive.sum("pair")).to_dataset(name="share")

    return _listed(interval(statistic, chosen[["reaction"]].reset_coords(drop=True), bootstrap)["share"])


def _share_without(pairs: xr.Dataset, removed: dict[str, float], bootstrap: Bootstrap) -> dict[str, Any]:
    """Return the lowest share of brakes with one head or one seed left out."""
    found: dict[str, Any] = {}
    for by in ("candidate", "seed"):
        labels = pairs[by].values.astype(str)
        each = {
            label: _share(pairs.isel(pair=labels != label), removed, "head", bootstrap)
            for label in dict.fromkeys(labels)
            if label.startswith("head.") and (labels != label).any()
        }
        lowest = min(each, key=lambda label: each[label][0], default="")
        found[by] = {"label": lowest, "share": each.get(lowest, [float("nan")] * 3)}
    return found


def _brakes(pairs: xr.Dataset, removed: dict[str, float]) -> np.ndarray:
    return np.array([removed[str(label)] < 0 for label in pairs["candidate"].values], bool)


def _named(pairs: xr.Dataset, removed: dict[str, float], bootstrap: Bootstrap) -> list[dict[str, Any]]:
    """Return the reactions that are surely above 5% of what the seed removes, by bounds for all pairs at once."""
    samples = pairs[["reaction"]].reset_coords(drop=True)
    found = simultaneous(lambda means: means, samples, bootstrap, "pair")["reaction"]
    rows = []
    for place, (seed, candidate) in enumerate(zip(pairs["seed"].values, pairs["candidate"].values, strict=True)):
        bounds = _listed(found.isel(pair=place))
        if bounds[1] > NOTABLE * removed[str(seed)]:
            writes = removed[str(candidate)]
            side = "brake" if writes < 0 else "substitute"
            rows.append(
                {"seed": str(seed), "reacts": str(candidate), "reaction": bounds, "writes": writes, "side": side}
            )
    return sorted(rows, key=lambda row: -row["reaction"][0])


def _drive(pairs: xr.Dataset, removed: dict[str, float], bootstrap: Bootstrap) -> dict[str, Any]:
    """Return the regression of the heads' reactions on what they write, pooled over the seeds.

    Both are in units of what the seed removes on the confirmation prompts, so seeds must surely remove something there.
    """
    heads = pairs.isel(pair=pairs["kind"].values.astype(str) == "head")
    writes = xr.DataArray([removed[str(label)] for label in heads["candidate"].values], dims="pair")
    size = heads["removed"].mean("prompt").reset_coords(drop=True)
    samples = (heads["reaction"].reset_coords(drop=True) / size).to_dataset(name="reaction")
    x = writes / size

    def line(means: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
        y = means["reaction"]
        dx, dy = x - x.mean("pair"), y - y.mean("pair")
        slope = (dx * dy).sum("pair") / (dx**2).sum("pair")
        return slope, y - y.mean("pair") - slope * dx

    def fit(means: xr.Dataset) -> xr.Dataset:
        y = means["reaction"]
        slope, _ = line(means)
        dx, dy = x - x.mean("pair"), y - y.mean("pair")
        correlation = (dx * dy).sum("pair") / np.sqrt((dx**2).sum("pair") * (dy**2).sum("pair"))
        return xr.Dataset({"slope": slope, "correlation": correlation})

    found = interval(fit, samples, bootstrap)
    above = simultaneous(lambda means: line(means)[1].to_dataset(name="above"), samples, bootstrap, "pair")["above"]
    sure = np.flatnonzero((above.sel(bound="low") > NOTABLE).values)
    rows = [
        {
            "seed": str(heads["seed"].values[place]),
            "reacts": str(heads["candidate"].values[place]),
            "above": _listed(above.isel(pair=place)),
            "writes": float(writes[place]),
        }
        for place in sure
    ]
    return {
        "slope": _listed(found["slope"]),
        "correlation": _listed(found["correlation"]),
        "pairs": int(heads.sizes["pair"]),
        "above": sorted(rows, key=lambda row: -row["above"][0]),
    }


def _boost(ablated: xr.Dataset, boosted: xr.Dataset, bootstrap: Bootstrap) -> dict[str, Any]:
    """Return how the heads' reactions to a doubled seed depend on those to its ablation."""
    order = {name: ablated[name].values.tolist() == boosted[name].values.tolist() for name in ("seed", "candidate")}
    assert all(order.values()), "the runs have other pairs"
    heads = ablated["kind"].values.astype(str) == "head"
    samples = xr.Dataset(
        {
            "ablated": ablated["reaction"].isel(pair=heads).reset_coords(drop=True),
            "boosted": boosted["reaction"].isel(pair=heads).reset_coords(drop=True),
        }
    )

    def statistic(means: xr.Dataset) -> xr.Dataset:
        slope = (means["ablated"] * means["boosted"]).sum("pair") / (means["ablated"] ** 2).sum("pair")
        return slope.to_dataset(name="slope")

    return {"slope": _listed(interval(statistic, samples, bootstrap)["slope"])}


def _inert(inert: xr.Dataset, active: xr.Dataset, removed: dict[str, float], bootstrap: Bootstrap) -> dict[str, Any]:
    """Return how much brakes let go for seeds that remove nothing, beside seeds that remove."""

    def released(pairs: xr.Dataset) -> tuple[xr.Dataset, np.ndarray]:
        chosen = pairs.isel(pair=_brakes(pairs, removed) & (pairs["kind"].values.astype(str) == "head"))
        return chosen[["reaction", "removed"]].reset_coords(drop=True), chosen["seed"].values.astype(str)

    (inert_samples, inert_seeds), (active_samples, active_seeds) = released(inert), released(active)
    counts = len(set(inert_seeds)), len(set(active_seeds))
    samples = xr.Dataset(
        {
            "inert": inert_samples["reaction"].rename(pair="inert_pair"),
            "active": active_samples["reaction"].rename(pair="active_pair"),
        }
    )

    def statistic(means: xr.Dataset) -> xr.Dataset:
        let_go = {
            "inert": means["inert"].clip(0).sum("inert_pair") / counts[0],
            "active": means["active"].clip(0).sum("active_pair") / counts[1],
        }
        return xr.Dataset({**let_go, "ratio": let_go["inert"] / let_go["active"]})

    found = interval(statistic, samples, bootstrap)
    means = inert_samples.mean("prompt")
    by_seed = {
        seed: {
            "removed": float(means["removed"].values[inert_seeds == seed][0]),
            "released": float(means["reaction"].clip(0).values[inert_seeds == seed].sum()),
        }
        for seed in dict.fromkeys(inert_seeds)
    }
    return {**{str(name): _listed(found[name]) for name in found}, "by_seed": by_seed}


def _scores(paths: Sequence[Path], bootstrap: Bootstrap) -> dict[str, dict[str, list[float]]]:
    """Return the rank correlation of each score with both truths, means over the seed heads.

    Candidates are the heads and MLPs downstream of a seed. Bounds resample the seeds.
    """
    each = [read_analysis(path, "reaction", "the study") for path in paths]
    found = xr.concat(each, "prompt", data_vars="minimal", coords="minimal", compat="override", join="override")
    spearman = backup_scores(found, bootstrap=Bootstrap(resamples=1))["spearman"]
    scored = spearman.sel(bound="estimate", among="downstream")
    table: dict[str, dict[str, list[float]]] = {}
    for truth in ("reaction", "synergy"):
        table[truth] = {}
        for score in SCORES:
            if score == truth:
                continue
            values = scored.sel(score=score, truth=truth).rename(seed="prompt").reset_coords(drop=True).dropna("prompt")
            table[truth][score] = _listed(
                interval(lambda means: means, values.to_dataset(name="rank"), bootstrap)["rank"]
            )
    return table


def _points(pairs: xr.Dataset, removed: dict[str, float]) -> list[list[Any]]:
    """Return the seed, the head, what it writes and its reaction, of every pair; for the figure."""
    means = pairs["reaction"].mean("prompt").values
    return [
        [str(seed), str(label), removed[str(label)], float(mean)]
        for seed, label, kind, mean in zip(
            pairs["seed"].values, pairs["candidate"].values, pairs["kind"].values, means, strict=True
        )
        if kind == "head"
    ]


def _listed(bounds: xr.DataArray) -> list[Any]:
    """Return estimate, low and high; None where there is none."""
    values = [float(bounds.sel(bound=name)) for name in ("estimate", "low", "high")]
    return [None if np.isnan(value) else value for value in values]
