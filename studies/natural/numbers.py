"""Condense the measured results to the numbers of the page."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import hydrascope as hs
from hydrascope.measures import (
    Bootstrap,
    Effects,
    Sigma,
    best_sublayer_held_out,
    budget,
    by_patch,
    compensable,
    compensation,
    direct_effect,
    interval,
    of_kind,
    outcome_bounds,
    own_change,
    per_prompt,
    regression,
    simultaneous,
    split,
    with_direct_effect,
)
from hydrascope.measures.regression import least_squares
from studies.natural.runs import CHOSEN_ON, Run, chosen
from studies.natural.verdict import judge
from studies.stored import Numbers, bounds_of, origin_of, prompts_of, rounded


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
    explored, scored = (
        hs.open_results(stores[Run(name, "passages", half)])  # type: ignore[arg-type]
        for half in ("exploration", "confirmation")
    )
    facts = hs.open_results(stores[Run(name, "facts", "confirmation")])
    # They are measured last of all, and may be left out.
    path = stores.get(Run(name, "passages", "confirmation", "mlps"))
    mlps = None if path is None else hs.open_results(path)
    folder = stores[Run(name, "passages", "exploration")].parent
    picks = chosen(folder, name)
    back = {readout: hs.measures.best_sublayer(per_prompt(scored, readout), "attn") for readout in CHOSEN_ON}
    passages: Numbers = {}
    for readout in CHOSEN_ON:
        effects = per_prompt(scored, readout)
        pick, other = picks[readout], back[readout]
        passages[readout] = {
            "at": pick,
            "attention": _sublayers(effects, "attn", bootstrap),
            "mlp": None if mlps is None else _sublayers(per_prompt(mlps, readout), "mlp", bootstrap),
            "best": _best(scored, readout, pick, bootstrap) if pick else None,
            "swapped": {"at": other, **_line(per_prompt(explored, readout), other, bootstrap)} if other else None,
            "groups": _groups(settings, scored, readout, pick, bootstrap) if pick else None,
        }
    if pick := picks["logit"]:
        passages["logit"]["placebo"] = _placebo(scored, pick, bootstrap)
    return {
        "origin": origin_of(scored),
        "passages": {
            **prompts_of(scored),
            "explored": explored.sizes["prompt"],
            "mlps": 0 if mlps is None else mlps.sizes["prompt"],
            **passages,
        },
        "facts": {**prompts_of(facts), **{readout: _facts(facts, readout, bootstrap) for readout in CHOSEN_ON}},
        "beside": _beside(stores, name, picks, bootstrap) if any(picks.values()) else None,
    }


def _sublayers(effects: Effects, kind: Any, bootstrap: Bootstrap) -> Numbers:
    """Return the slope of each sublayer with something downstream, with bounds for all of them at once."""
    read = with_direct_effect(effects)
    able = of_kind(read.isel(ablated=compensable(read).values), "ablated", kind)
    fit, samples = least_squares(direct_effect(able), compensation(able)["compensation"])
    slopes = simultaneous(lambda means: fit(means)[["slope"]], samples, bootstrap, "ablated")["slope"]
    return {
        "slopes": {str(label): bounds_of(slopes.sel(ablated=label)) for label in slopes["ablated"].values},
        "above_0": int((slopes.sel(bound="low") > 0).sum()),
        "below_0": int((slopes.sel(bound="high") < 0).sum()),
        "below_1": int((slopes.sel(bound="high") < 1).sum()),
        "above_1": int((slopes.sel(bound="low") > 1).sum()),
    }


def _line(effects: Effects, at: str, bootstrap: Bootstrap) -> Numbers:
    """Return slope and R² of CE on DE at one sublayer."""
    samples = budget(_at(effects, at))
    fit = regression(samples["contribution"], samples["compensated"], bootstrap).isel(ablated=0)
    return {"slope": bounds_of(fit["slope"]), "r2": bounds_of(fit["r2"])}


def _at(effects: Effects, at: str) -> Effects:
    return effects.isel(ablated=(effects["ablated"] == at).values)


def _best(scored: xr.Dataset, readout: str, at: str, bootstrap: Bootstrap) -> Numbers:
    """Return the numbers of the chosen sublayer: its slope, and the same in other readings."""
    scales: tuple[Sigma, ...] = ("clean", "own")
    clean, own = (_at(per_prompt(scored, readout, sigma), at) for sigma in scales)
    samples = budget(clean).isel(ablated=0)
    removed = -own_change(clean).isel(ablated=0)
    shares = outcome_bounds(clean, bootstrap).isel(ablated=0)
    return {
        **_line(clean, at, bootstrap),
        "own_scale": _line(own, at, bootstrap),
        "on_removed": bounds_of(regression(removed, samples["compensated"], bootstrap)["slope"]),
        "restored_slope": bounds_of(regression(samples["removed"], samples["restored"], bootstrap)["slope"]),
        "restored": bounds_of(shares["share"]),
        "removed": bounds_of(shares["removed"]),
        "lost": bounds_of(shares["lost"]),
        "loudest": _loudest(samples),
    }


def _loudest(samples: xr.Dataset) -> Numbers:
    """Return the share of all |DE| that 5% of the prompts hold, and the slope without them."""
    x, y = samples["contribution"].values, samples["compensated"].values
    order = np.argsort(-abs(x))
    count = max(1, round(0.05 * len(x)))
    rest = order[count:]
    return {
        "prompts": count,
        "hold": rounded(abs(x[order[:count]]).sum() / abs(x).sum()),
        "without": rounded(np.polyfit(x[rest], y[rest], 1)[0]),
    }


def _groups(
    settings: Mapping[str, Any], scored: xr.Dataset, readout: str, at: str, bootstrap: Bootstrap
) -> list[list[float | None]]:
    """Return the slope of each disjoint group of patches."""
    some = scored.sel(ablated=[at])
    after, effects = by_patch(some, readout), per_prompt(some, readout)
    assert after is not None
    later = effects["downstream"].isel(ablated=0).values
    changes = (after.isel(ablated=0) - effects["unembed"]).isel(component=later).sum("component")
    each = settings["groups"]["each"]
    x = direct_effect(effects).isel(ablated=0)
    return [
        bounds_of(regression(x, changes.isel(patch=slice(start, start + each)).mean("patch"), bootstrap)["slope"])
        for start in range(0, changes.sizes["patch"] // each * each, each)
    ]


def _placebo(scored: xr.Dataset, at: str, bootstrap: Bootstrap) -> Numbers:
    """Return the slopes of drawn tokens at a sublayer, and by how much the target's is larger."""
    names = ["logit", *(str(name) for name in scored["readout"].values if str(name).startswith("placebo"))]
    samples = [budget(_at(per_prompt(scored, name), at)).isel(ablated=0).reset_coords(drop=True) for name in names]
    x, y = (xr.concat([each[name] for each in samples], "token") for name in ("contribution", "compensated"))
    fit, moments = least_squares(x, y)

    def statistic(means: xr.Dataset) -> xr.Dataset:
        slopes = fit(means)["slope"]
        others = slopes.isel(token=slice(1, None))
        return xr.Dataset({"slope": others, "less": slopes.isel(token=0) - others})

    found = interval(statistic, moments, bootstrap)
    return {str(name): [bounds_of(each.isel(token=n)) for n in range(len(names) - 1)] for name, each in found.items()}


def _facts(facts: xr.Dataset, readout: str, bootstrap: Bootstrap) -> Numbers:
    effects = per_prompt(facts, readout)
    found: Numbers = {"attention": _sublayers(effects, "attn", bootstrap), "best": None}
    held = best_sublayer_held_out(effects, "attn", bootstrap)
    if held:
        found["best"] = {"at": held[0].named, "slope": bounds_of(held[1]["slope"]), "r2": bounds_of(held[1]["r2"])}
    return found


def _beside(stores: Mapping[Run, Path], name: str, picks: Mapping[str, str | None], bootstrap: Bootstrap) -> Numbers:
    """Return damping, weight noise and kick at the chosen sublayers."""
    here = {run.kind: path for run, path in stores.items() if (run.model, run.prompts) == (name, "passages")}
    damped = hs.open_results(here["damping"])
    found: Numbers = {"damping": {"number": damped.sizes["prompt"]}, "weight_noise": {}}
    for readout, pick in picks.items():
        if pick:
            parts = split(damped, readout, bootstrap)
            found["damping"][readout] = bounds_of(parts["damping"].sel(ablated=pick))
    if pick := picks["logit"]:
        for kind, path in here.items():
            if kind.startswith("noise."):
                found["weight_noise"][kind] = _line(per_prompt(hs.open_results(path), "logit"), pick, bootstrap)[
                    "slope"
                ]
        found["weight_noise"]["number"] = hs.open_results(here["noise.none"]).sizes["prompt"]
    kicks = json.loads(here["distance"].read_text("utf-8")) if "distance" in here else {}
    found["kick"] = {pick: rounded(each) for pick, each in kicks.items()}
    return found
