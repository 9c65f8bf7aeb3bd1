"""Condense the measured results of the replication to the numbers of its page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xarray as xr

import hydrascope as hs
from hydrascope.measures import (
    Bootstrap,
    Effects,
    HeldOut,
    Sigma,
    agreement,
    best_sublayer_held_out,
    budget,
    compensable,
    compensation,
    compensation_regression,
    depth,
    direct_effect,
    erasure,
    localisation,
    mean_interval,
    of_kind,
    per_prompt,
    regression,
    repair_profile,
    response_shift,
    simultaneous,
    strongest,
    three_answers,
    with_direct_effect,
)
from hydrascope.measures.regression import least_squares
from studies.stored import Numbers, bounds_of, origin_of, prompts_of, rounded


def condense(settings: Mapping[str, Any], stores: Mapping[tuple[str, str], Path]) -> Numbers:
    """Return all numbers of the page: first of the prompts, then of each model and ablation.

    Args:
        settings: the study's settings.
        stores: the path of each result by model and ablation.
    """
    bootstrap = Bootstrap(**settings["intervals"])
    runs: Numbers = {}
    for (model, ablation), path in stores.items():
        stored = hs.open_results(path)
        runs.setdefault(model, {})[ablation] = {**origin_of(stored), **_numbers(stored, bootstrap)}
    return {"prompts": prompts_of(hs.open_results(next(iter(stores.values())))), "runs": runs}


def _numbers(stored: xr.Dataset, bootstrap: Bootstrap) -> Numbers:
    effects = per_prompt(stored, "logit")
    read = with_direct_effect(effects)
    fit = compensation_regression(of_kind(read, "ablated", "attn"), bootstrap)
    profile = repair_profile(effects, "attn", bootstrap)
    return {
        "attention": _sublayers(read, "attn", bootstrap),
        "mlp": _sublayers(read, "mlp", bootstrap),
        "best": _best(stored, effects, bootstrap),
        "slope_below_1_from": bounds_of(profile["partial_from"]),
        "answers": {
            kind: [
                [each.question, each.answer, each.above, each.possible, each.asked]
                for each in three_answers(effects, kind, bootstrap)
            ]
            for kind in ("attn", "mlp")
        },
        "direct_exceeds_lost": bounds_of(
            mean_interval((direct_effect(read) > -read["total"]).mean("ablated"), bootstrap)
        ),
        "correlation": _by_label(agreement(of_kind(read, "ablated", "attn"), bootstrap)["correlation"]),
        "strongest": _strongest(effects, fit, bootstrap),
    }


def _sublayers(read: Effects, kind: str, bootstrap: Bootstrap) -> Numbers:
    """Return slope and R² of each sublayer with something downstream, with bounds for all slopes at once."""
    chosen = of_kind(read.isel(ablated=compensable(read).values), "ablated", kind)  # type: ignore[arg-type]
    fit, samples = least_squares(direct_effect(chosen), compensation(chosen)["compensation"])
    slopes = simultaneous(lambda means: fit(means)[["slope"]], samples, bootstrap, "ablated")["slope"]
    r2 = compensation_regression(chosen, Bootstrap(resamples=1))["r2"].sel(bound="estimate")
    return {
        "slopes": _by_label(slopes),
        "r2": {str(label): rounded(value) for label, value in zip(r2["ablated"].values, r2.values, strict=True)},
        "above_0": int((slopes.sel(bound="low") > 0).sum()),
        "below_0": int((slopes.sel(bound="high") < 0).sum()),
        "below_1": int((slopes.sel(bound="high") < 1).sum()),
        "positive": int((slopes.sel(bound="estimate") > 0).sum()),
    }


def _best(stored: xr.Dataset, effects: Effects, bootstrap: Bootstrap) -> Numbers | None:
    """Return the regression at the best attention sublayer, chosen on the other half of the prompts."""
    found = best_sublayer_held_out(effects, "attn", bootstrap)
    if found is None:
        return None
    held, line = found
    others = list(map(str, stored["readout"].values))[1:]
    own = _line(stored, held, "logit", "own", bootstrap)
    return {
        "at": held.named,
        "blocks": sorted({int(pick.split(".")[1]) for pick in held.picks}),
        "slope": bounds_of(line["slope"]),
        "r2": bounds_of(line["r2"]),
        "slope_own": bounds_of(own["slope"]),
        "r2_own": bounds_of(own["r2"]),
        "slope_placebo": [
            rounded(float(_line(stored, held, other, "clean", bootstrap)["slope"][0])) for other in others
        ],
    }


def _line(stored: xr.Dataset, held: HeldOut, readout: str, sigma: Sigma, bootstrap: Bootstrap) -> xr.Dataset:
    picked = stored.sel(ablated=list(dict.fromkeys(held.picks)))
    samples = budget(per_prompt(picked, readout, sigma))
    return regression(held.take(samples["contribution"]), held.take(samples["compensated"]), bootstrap)


def _strongest(effects: Effects, fit: xr.Dataset, bootstrap: Bootstrap) -> Numbers:
    """Return the responses to the strongest attention sublayer, in the mean or of each prompt."""
    attention = of_kind(effects.isel(ablated=compensable(effects).values), "ablated", "attn")
    at = str(strongest(direct_effect(attention).mean("prompt")).item())
    reached = localisation(attention)
    chosen = strongest(direct_effect(attention))
    erased = erasure(effects, at, bootstrap=bootstrap)
    average = xr.Dataset(
        {"de": direct_effect(attention).sel(ablated=at), "ce": compensation(attention)["compensation"].sel(ablated=at)}
    )
    return {
        "at": at,
        "slope": bounds_of(fit["slope"].sel(ablated=at)),
        "average": bounds_of(
            hs.measures.interval(lambda means: (means["ce"] / means["de"]).to_dataset(name="x"), average, bootstrap)[
                "x"
            ]
        ),
        "respond": bounds_of(mean_interval(reached["changed"].sel(ablated=chosen).drop_vars("ablated"), bootstrap)),
        "downstream": rounded(float(reached["available"].sel(ablated=chosen).mean())),
        "late_mlps": erased.sizes["component"],
        "erasing": bounds_of(erased["erasing"]),
        "erase_less": bounds_of(erased["attenuated"]),
        "taken_back": bounds_of(erased["attenuation"]),
        "shift": bounds_of(response_shift(effects, "attn", bootstrap)["block"]),
        "depth": depth(effects),
    }


def _by_label(bounds: xr.DataArray) -> dict[str, list[float | None]]:
    return {str(label): bounds_of(bounds.sel(ablated=label)) for label in bounds["ablated"].values}
