"""Condense the measured results to the numbers of the page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from hydrascope.components.experiments import SPLIT
from hydrascope.measures import Bootstrap, interval
from studies.stored import Numbers, bounds_of, rounded
from studies.training import estimator
from studies.training.estimator import SWAPS, ZEROS
from studies.training.runs import FEW_TESTS, TESTS, Run
from studies.training.trainer import CONTROL
from studies.training.verdict import judge


def condense(settings: Mapping[str, Any], stores: Mapping[Run, Path]) -> Numbers:
    """Return all numbers of the page.

    Args:
        settings: the study's settings.
        stores: the path of each result.
    """
    measured, bootstrap = {run.arm for run in stores}, Bootstrap(**settings["intervals"])
    arms = [arm for arm in settings["arms"] if arm in measured]
    seeds = settings["seeds"]
    kl = _kl(stores, seeds, arms, TESTS)
    logs = estimator.log_kl(kl.mean("prompt"))
    first = np.load(stores[Run(seeds[0], CONTROL, "zero")])
    loss = _of_models(stores, seeds, arms, "loss")
    equal = _at_equal_loss(settings, stores, logs, loss)
    explored = _kl(stores, seeds, arms, [f"{test}, exploration" for test in FEW_TESTS]).assign_coords(test=[*FEW_TESTS])
    found: Numbers = {
        "origin": {
            "hydrascope": str(first["hydrascope"]),
            "parameters": int(np.load(stores[Run(seeds[0], CONTROL, "loss")])["parameters"]),
            **_corpus(stores),
        },
        "prompts": {
            "number": kl.sizes["prompt"],
            "hash": str(first["prompts_hash"]),
            "explored": explored.sizes["prompt"],
        },
        "sublayers": [str(each) for each in kl["sublayer"].values],
        "loss": _by_arm(loss),
        "entropy": _by_arm(_of_models(stores, seeds, arms, "entropy")),
        "log_kl": {test: _by_arm(logs.sel(test=test)) for test in TESTS},
        "gain": _gains(kl, bootstrap),
        "equal_loss": {test: _by_arm(equal.sel(test=test)) for test in FEW_TESTS},
        "parts": _parts(kl, bootstrap),
        "exploration": _seeds(estimator.parts(estimator.gain(estimator.log_kl(explored.mean("prompt"))))),
        "parts_at_equal_loss": _seeds(estimator.parts(equal)),
        "loudest": _loudest(kl),
        "each": _each(kl),
        "effects": _effects(stores, seeds, arms),
        "kick": {
            test: {arm: [_kick(stores, seed, arm, test) for seed in seeds] for arm in (CONTROL, ZEROS, SWAPS)}
            for test in FEW_TESTS
        },
    }
    return found | {"verdict": judge(settings, found)}


def _kl(
    stores: Mapping[Run, Path], seeds: Sequence[int], arms: Sequence[str], tests: Sequence[str], step: int | None = None
) -> xr.DataArray:
    """Return KL divergences, `[seed, arm, test, prompt, sublayer]`, means over patches, without the last sublayer."""
    values = [[[_divergences(stores[Run(s, a, t, step)]) for t in tests] for a in arms] for s in seeds]
    whole = xr.concat(
        [xr.concat([xr.concat(per, "test") for per in each], "arm") for each in values], "seed", join="exact"
    )
    return whole.assign_coords(seed=list(seeds), arm=list(arms), test=list(tests))


def _divergences(path: Path) -> xr.DataArray:
    stored = np.load(path)
    whole = xr.DataArray(stored["kl"], {"sublayer": stored["sublayer"]}, ("prompt", "sublayer"))
    return whole.isel(sublayer=slice(-1))


def _of_models(stores: Mapping[Run, Path], seeds: Sequence[int], arms: Sequence[str], name: str) -> xr.DataArray:
    """Return a number of each model, `[seed, arm]`."""
    values = [[_number(stores[Run(seed, arm, "loss")], name) for arm in arms] for seed in seeds]
    return xr.DataArray(values, {"seed": list(seeds), "arm": list(arms)}, ("seed", "arm"))


def _at_equal_loss(
    settings: Mapping[str, Any], stores: Mapping[Run, Path], logs: xr.DataArray, loss: xr.DataArray
) -> xr.DataArray:
    """Return the change of each arm's log KL against the control where it had the same held-out loss."""
    seeds, end = settings["seeds"], settings["steps"]["branch"]
    few = logs.sel(test=list(FEW_TESTS))
    way = [
        estimator.log_kl(_kl(stores, seeds, [CONTROL], FEW_TESTS, step).mean("prompt")).sel(arm=CONTROL, drop=True)
        for step in settings["kept"]
    ]
    losses = [
        [_number(stores[Run(seed, CONTROL, "loss", step)], "loss") for seed in seeds] for step in settings["kept"]
    ]
    steps = xr.Variable("step", [*settings["kept"], end])
    whole = xr.concat([*way, few.sel(arm=CONTROL, drop=True)], steps)
    whole_loss = xr.DataArray([*losses, loss.sel(arm=CONTROL).values], {"step": steps, "seed": seeds}, ("step", "seed"))
    return estimator.at_equal_loss(few, loss, whole, whole_loss)


def _by_arm(values: xr.DataArray) -> Numbers:
    """Return the numbers of all seeds by arm."""
    return {str(arm): list(map(rounded, values.sel(arm=arm).values)) for arm in values["arm"].values}


def _of_seeds(values: np.ndarray) -> Numbers:
    """Return a number of each seed, the mean with its bounds by t, and its two-sided p."""
    bounds, p = estimator.over_seeds(values)
    return {"seeds": list(map(rounded, values)), "bounds": list(map(rounded, bounds)), "p": float(f"{p:.3g}")}


def _seeds(found: xr.Dataset) -> Numbers:
    return {str(name): _of_seeds(each.transpose("seed").values) for name, each in found.items()}


def _parts(kl: xr.DataArray, bootstrap: Bootstrap) -> Numbers:
    """Return the parts of the primary claim over seeds, and with bounds over passages for the mean of the seeds."""

    def statistic(means: xr.Dataset) -> xr.Dataset:
        return estimator.parts(estimator.gain(estimator.log_kl(means["kl"]))).mean("seed")

    over_seeds = _seeds(estimator.parts(estimator.gain(estimator.log_kl(kl.mean("prompt")))))
    used = kl.sel(arm=[CONTROL, ZEROS, SWAPS], test=list(FEW_TESTS))
    over_passages = interval(statistic, used.to_dataset(name="kl"), bootstrap)
    return {name: {**of, "passages": bounds_of(over_passages[name])} for name, of in over_seeds.items()}


def _gains(kl: xr.DataArray, bootstrap: Bootstrap) -> Numbers:
    """Return for each test and arm the change of the log KL against the control."""

    def statistic(means: xr.Dataset) -> xr.Dataset:
        return estimator.gain(estimator.log_kl(means["kl"])).mean("seed").to_dataset(name="gain")

    gains = estimator.gain(estimator.log_kl(kl.mean("prompt")))
    over_passages = interval(statistic, kl.to_dataset(name="kl"), bootstrap)["gain"]
    return {
        str(test): {
            str(arm): {
                **_of_seeds(gains.sel(test=test, arm=arm).values),
                "passages": bounds_of(over_passages.sel(test=test, arm=arm)),
            }
            for arm in kl["arm"].values
            if arm != CONTROL
        }
        for test in kl["test"].values
    }


def _loudest(kl: xr.DataArray) -> Numbers:
    """Return the largest share that 5% of the passages hold of a cell's KL, and the interaction without them."""
    used = kl.sel(arm=[CONTROL, ZEROS, SWAPS], test=list(FEW_TESTS))

    def interaction(means: xr.DataArray) -> xr.DataArray:
        return estimator.parts(estimator.gain(estimator.log_kl(means)))["interaction"].mean("seed")

    return {
        "hold": rounded(estimator.held_by_loudest(used)),
        "without": rounded(float(interaction(estimator.without_loudest(used)))),
        "blocks": rounded(float(interaction(estimator.by_block(used)).median())),
    }


def _each(kl: xr.DataArray) -> Numbers:
    """Return how much of the claim hangs on single sublayers.

    `interaction` is that of each sublayer alone; `largest` names for each test the sublayer with most of the control's
    KL, and its share; `gain_without_largest` and `without_largest` are the changes and the parts without those; `alike`
    the parts where all sublayers count alike, by the mean of their log KL.
    """
    means = kl.mean("prompt")
    labels, control = means["sublayer"].values, means.sel(arm=CONTROL)
    alone = estimator.parts(estimator.gain(np.log(means)))
    shares = (control / control.sum("sublayer")).mean("seed")
    largest = {test: str(labels[int(shares.sel(test=test).values.argmax())]) for test in FEW_TESTS}
    rest = means.isel(sublayer=[label not in largest.values() for label in labels])
    return {
        "interaction": {
            str(label): rounded(float(alone["interaction"].mean("seed").sel(sublayer=label))) for label in labels
        },
        "largest": {
            test: {"sublayer": label, "share": rounded(float(shares.sel(test=test, sublayer=label)))}
            for test, label in largest.items()
        },
        "gain_without_largest": {
            test: {
                arm: _of_seeds(estimator.gain(estimator.log_kl(rest)).sel(test=test, arm=arm).values)
                for arm in (ZEROS, SWAPS)
            }
            for test in FEW_TESTS
        },
        "without_largest": _seeds(estimator.parts(estimator.gain(estimator.log_kl(rest)))),
        "alike": _seeds(alone.mean("sublayer")),
    }


def _effects(stores: Mapping[Run, Path], seeds: Sequence[int], arms: Sequence[str]) -> Numbers:
    """Return effects on the target's logit by arm and seed, over all sublayers but the last.

    `removed` and `lost` are sums over sublayers of means over passages; the rest is pooled over sublayers.
    """
    found: dict[str, dict[str, list[float | None]]] = {}
    for arm in arms:
        for seed in seeds:
            path = stores[Run(seed, arm, "split")]
            whole, readout, content = (_logits(path, f"{part} ") for part in ("whole", *SPLIT))
            swapped = _logits(stores[Run(seed, arm, "resample")])
            numbers = {
                "removed, zero": -_total(whole["direct"]),
                "lost, zero": -_total(whole["total"]),
                "removed, resample": -_total(swapped["direct"]),
                "lost, resample": -_total(swapped["total"]),
                "damping": 1 - float((readout["total"] * readout["direct"]).sum() / (readout["direct"] ** 2).sum()),
                "content": estimator.pooled_slope(-whole["direct"], content["total"] - content["direct"]),
                "slope": estimator.pooled_slope(-whole["direct"], whole["total"] - whole["direct"]),
            }
            for name, value in numbers.items():
                found.setdefault(name, {}).setdefault(arm, []).append(rounded(value))
    return found


def _total(effect: xr.DataArray) -> float:
    return float(effect.mean("prompt").sum("sublayer"))


def _logits(path: Path, part: str = "") -> dict[str, xr.DataArray]:
    """Return `total` and `direct` [prompt, sublayer] on the target's logit, without the last sublayer."""
    stored = np.load(path)
    return {
        name: xr.DataArray(stored[f"{part}{name}"], dims=("prompt", "sublayer")).isel(sublayer=slice(-1))
        for name in ("total", "direct")
    }


def _kick(stores: Mapping[Run, Path], seed: int, arm: str, test: str) -> float | None:
    return rounded(_number(stores[Run(seed, arm, f"kick, {test}")], "kick"))


def _number(path: Path, name: str) -> float:
    return float(np.load(path)[name])


def _corpus(stores: Mapping[Run, Path]) -> Numbers:
    folder = next(iter(stores.values())).parents[1] / "corpus"
    about: Numbers = json.loads((folder / "texts.json").read_text("utf-8"))["about"]
    return about
