"""The paper's findings for the measured model, as numbers with confidence intervals."""

from collections.abc import Iterator
from dataclasses import dataclass

import xarray as xr

from hydrascope.measures import (
    SIGMA_NAME,
    Bootstrap,
    ComponentKind,
    Effects,
    HeldOut,
    Sigma,
    SublayerKind,
    best_sublayer_held_out,
    budget,
    compensable,
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
    strength,
    strongest,
    with_direct_effect,
)
from hydrascope.reports.summary.interval import Interval

#: A downstream attention sublayer responds if it changes by more than this share of DE.
LOCALISATION_SHARE = 0.1
#: The relative depth at which late MLPs begin.
LATE = 0.5

_NAME: dict[SublayerKind, str] = {"attn": "attention", "mlp": "MLP"}
PLURAL: dict[ComponentKind, str] = {
    "attn": "attention sublayers",
    "mlp": "MLPs",
    "head": "heads",
    "neuron": "neurons",
    "feature": "features",
    "error": "errors",
    "bias": "biases",
    "joint": "combinations",
}


@dataclass(frozen=True)
class Finding:
    """One number that a run establishes.

    Attributes:
        name: the name, with the ablated component it was measured at.
        value: a share, a count of sublayers, or the number of a block.
        meaning: the definition, in one line.
        paper: the paper's number for Chinchilla 7B; empty if it gives none.
        whole: whether the value is a whole number: a count or a block's number.
        nowhere: the value that means no block; None if the value always names a block.
    """

    name: str
    value: Interval
    meaning: str
    paper: str = ""
    whole: bool = False
    nowhere: int | None = None


def findings(
    results: xr.Dataset, effects: Effects, fit: xr.Dataset, shares: xr.Dataset, bootstrap: Bootstrap
) -> Iterator[Finding]:
    """Yield every finding of the paper that a run has the data for.

    Args:
        results: the results of a run.
        effects: the effects of these results (`per_prompt`).
        fit: the `compensation_regression` of the effects.
        shares: the `restoration` of the effects.
        bootstrap: the resampling that gives the intervals.
    """
    yield from _restored(effects, shares)
    yield from _disagreement(with_direct_effect(effects), bootstrap)
    for kind in _NAME:
        if compensable(of_kind(effects, "ablated", kind)).any():
            yield from _repair(results, effects, kind, fit, shares, bootstrap)
            if kind == "attn":
                yield from _response(effects, bootstrap)


def strongest_component(effects: Effects, kind: ComponentKind) -> str | None:
    """Return the ablated component of one kind with the largest mean direct effect.

    Components with nothing downstream don't count. Components that weren't read count by what they remove.

    Returns:
        The component's label; None if there is none.
    """
    chosen = of_kind(effects.isel(ablated=compensable(effects).values), "ablated", kind)
    return str(strongest(strength(chosen).mean("prompt")).item()) if chosen.sizes["ablated"] else None


def _restored(effects: Effects, shares: xr.Dataset) -> Iterator[Finding]:
    """Yield the share restored, and its split, at the strongest component of each kind."""
    for kind in PLURAL:
        strong = strongest_component(effects, kind)
        if strong is None or kind == "joint":
            continue
        meaning = f"1 − lost/removed, the ratio of means, at the strongest of the {PLURAL[kind]}"
        yield Finding(f"restored at {strong}", Interval.at(shares["restored"], strong).if_bounded, meaning)
        slope = Interval.at(shares["restored_slope"], strong)
        yield Finding(f"slope of restored on removed at {strong}", slope, "of total − direct on −direct over prompts")
        for name, by in (("attention", "attention"), ("mlp", "MLPs"), ("norm", "the norm")):
            share = Interval.at(shares[name], strong).if_bounded
            yield Finding(f"  of it by {by}", share, "share of what is removed")


def _disagreement(read: Effects, bootstrap: Bootstrap) -> Iterator[Finding]:
    """Yield the share of prompts on which ablation loses less than the direct effect (Figure 2)."""
    groups: tuple[tuple[str, tuple[ComponentKind, ...]], ...] = (
        ("sublayers", ("attn", "mlp")),
        ("heads", ("head",)),
        ("neurons", ("neuron",)),
        ("features", ("feature",)),
    )
    for name, chosen in groups:
        selected = of_kind(read, "ablated", *chosen)
        if selected.sizes["ablated"]:
            exceeds = (direct_effect(selected) > -selected["total"]).mean("ablated")
            meaning = f"share of prompts and ablated {name} that lose less than their direct effect"
            which = "" if name == "sublayers" else f", {name}"
            yield Finding(f"DE above lost{which}", Interval.of(mean_interval(exceeds, bootstrap)), meaning)


def _repair(
    results: xr.Dataset,
    effects: Effects,
    kind: SublayerKind,
    fit: xr.Dataset,
    shares: xr.Dataset,
    bootstrap: Bootstrap,
) -> Iterator[Finding]:
    """Yield findings on the compensation for one kind of sublayer (Figure 7)."""
    name = _NAME[kind]
    # The paper gives numbers for attention alone.
    where, r2, share, partial = ("23 of 32", "0.92", "about 0.7", "past 13 of 32") if kind == "attn" else [""] * 4
    profile = {str(key): Interval.of(value) for key, value in repair_profile(effects, kind, bootstrap).items()}
    best, strong = best_sublayer_held_out(effects, kind, bootstrap), strongest_component(effects, kind)

    yield Finding(f"best {name} sublayer", profile["best"], "highest R² of CE on DE", where, whole=True)
    if best is not None:
        held, line = best
        where = held.named
        pooled = "; two components, pooled" if held.pooled else ""
        chosen = f"chosen on one half of the prompts, measured on the other{pooled}"
        yield Finding(f"R² at {where}", Interval.of(line["r2"]), f"of CE on DE; {chosen}", r2)
        yield Finding(f"slope of CE on DE at {where}", Interval.of(line["slope"]), chosen, share)
        yield from _other_reading(results, effects, held, bootstrap)
    if kind == "attn" and strong is not None:
        meaning = "at the sublayer with the largest mean DE"
        yield Finding(f"slope of CE on DE at {strong}", Interval.at(fit["slope"], strong), meaning, share)
        average = Interval.at(shares["compensated"], strong)
        yield Finding(f"CE/DE at {strong}", average, "the ratio of their means")
    of_all = f"of {profile['slopes'].estimate:g}"
    yield Finding(f"{name} sublayers with slope above 0", profile["repairing"], of_all, whole=True)
    yield Finding(f"{name} sublayers with slope below 1", profile["partial"], of_all, whole=True)
    meaning = f"from this block on every {name} sublayer’s slope is below 1"
    yield Finding(
        f"all {name} slopes below 1 from", profile["partial_from"], meaning, partial, whole=True, nowhere=depth(effects)
    )


def _other_reading(results: xr.Dataset, effects: Effects, held: HeldOut, bootstrap: Bootstrap) -> Iterator[Finding]:
    """Yield the slope and R² at the best sublayer under the other reading of σ."""
    if effects.readout_before >= 0:
        return
    sigma: Sigma = "own" if effects.sigma == "clean" else "clean"
    other = budget(per_prompt(results.sel(ablated=list(dict.fromkeys(held.picks))), effects.readout, sigma))
    again = regression(held.take(other["contribution"]), held.take(other["compensated"]), bootstrap)
    for name, title in (("r2", "R²"), ("slope", "slope of CE on DE")):
        yield Finding(f"{title}, read otherwise", Interval.of(again[name]), f"the same, {SIGMA_NAME[sigma]}")


def _response(effects: Effects, bootstrap: Bootstrap) -> Iterator[Finding]:
    """Yield findings on responses to ablated attention: their number, erasure, and MLPs' share."""
    attention = of_kind(effects, "ablated", "attn")
    reached = localisation(attention, LOCALISATION_SHARE)
    reached = reached.isel(ablated=(reached["available"] > 0).values)
    if reached.sizes["ablated"]:
        chosen = strongest(direct_effect(attention).sel(ablated=reached["ablated"]))
        changed = reached["changed"].sel(ablated=chosen).drop_vars("ablated")
        available = float(reached["available"].sel(ablated=chosen).mean())
        yield Finding(
            "attention sublayers that respond",
            Interval.of(mean_interval(changed, bootstrap)),
            f"|ΔDE| > {LOCALISATION_SHARE:.0%} of DE at each prompt’s strongest, of {available:.1f} downstream",
        )
    strong = str(strongest_component(effects, "attn"))
    erased = erasure(effects, strong, LATE, bootstrap)
    count = erased.sizes["component"]
    if count:
        erasing = Interval.of(erased["erasing"])
        yield Finding("late MLPs that erase", erasing, f"mean DE below 0, of {count} above {strong}", whole=True)
        less = f"that push the target down less when {strong} is ablated"
        yield Finding("  of these erase less", Interval.of(erased["attenuated"]), less, whole=True)
        share = f"share by which all of it together shrinks when {strong} is ablated"
        yield Finding("  erasure that is taken back", Interval.of(erased["attenuation"]), share)
    if reached.sizes["ablated"]:
        shift = Interval.of(response_shift(effects, "attn", bootstrap)["block"])
        meaning = "from this ablated block on MLPs respond more than attention"
        yield Finding(
            "response passes to MLPs at block", shift, meaning, "by 22 of 32", whole=True, nowhere=depth(effects)
        )
