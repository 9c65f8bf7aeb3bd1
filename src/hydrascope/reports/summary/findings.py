"""The findings of a run, as numbers with confidence intervals: what the paper reports of its own model."""

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

#: A downstream attention layer takes part in the response if it changes by more than this share of DE.
LOCALISATION_SHARE = 0.1
#: An MLP is late from this share of the network's depth on.
LATE = 0.5

_NAME: dict[SublayerKind, str] = {"attn": "attention", "mlp": "MLP"}
PLURAL: dict[ComponentKind, str] = {
    "attn": "attention layers",
    "mlp": "MLP layers",
    "head": "heads",
    "neuron": "neurons",
    "joint": "combinations",
}


@dataclass(frozen=True)
class Finding:
    """One number that the run establishes.

    Attributes:
        name: what it is, with the part it was found at.
        value: a share, a count of layers, or a layer's number.
        meaning: how it is computed, in a line.
        paper: what the paper reports of Chinchilla 7B, empty where it gives no number.
        whole: whether it counts or names layers.
        nowhere: the number that stands for no layer at all, where it names one that there may not be.
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
    """Every finding of the paper that a run can tell of.

    Args:
        results: of a run.
        effects: the same, read by `per_prompt`.
        fit: its `compensation_regression`.
        shares: its `restoration`.
    """
    yield from _restored(effects, shares)
    yield from _disagreement(with_direct_effect(effects), bootstrap)
    for kind in _NAME:
        if compensable(of_kind(effects, "ablated", kind)).any():
            yield from _repair(results, effects, kind, fit, shares, bootstrap)
            if kind == "attn":
                yield from _response(effects, bootstrap)


def strongest_component(effects: Effects, kind: ComponentKind) -> str | None:
    """The ablated part of one kind with the largest mean direct effect, among those with anything downstream.

    By what is removed, where the direct effect wasn't read; None if there is no such part.
    """
    chosen = of_kind(effects.isel(ablated=compensable(effects).values), "ablated", kind)
    return str(strongest(strength(chosen).mean("prompt")).item()) if chosen.sizes["ablated"] else None


def _restored(effects: Effects, shares: xr.Dataset) -> Iterator[Finding]:
    """How much of what an ablation removes is restored, and by what, at the strongest part of each kind."""
    for kind in PLURAL:
        strong = strongest_component(effects, kind)
        if strong is None or kind == "joint":
            continue
        how = f"1 − lost/removed, the ratio of means, at the strongest of the {PLURAL[kind]}"
        yield Finding(f"restored at {strong}", Interval.at(shares["restored"], strong).if_bounded, how)
        slope = Interval.at(shares["restored_slope"], strong)
        yield Finding(f"slope of restored on removed at {strong}", slope, "of total − direct on −direct over prompts")
        for name, by in (("attention", "attention"), ("mlp", "MLPs"), ("norm", "the norm")):
            share = Interval.at(shares[name], strong).if_bounded
            yield Finding(f"  of it by {by}", share, "share of what is removed")


def _disagreement(read: Effects, bootstrap: Bootstrap) -> Iterator[Finding]:
    """How often ablation costs less than unembedding lets expect (Figure 2)."""
    groups: tuple[tuple[str, tuple[ComponentKind, ...]], ...] = (
        ("layers", ("attn", "mlp")),
        ("heads", ("head",)),
        ("neurons", ("neuron",)),
    )
    for name, chosen in groups:
        part = of_kind(read, "ablated", *chosen)
        if part.sizes["ablated"]:
            exceeds = (direct_effect(part) > -part["total"]).mean("ablated")
            meaning = f"share of prompts and ablated {name} that lose less than their direct effect"
            which = "" if name == "layers" else f", {name}"
            yield Finding(f"DE above lost{which}", Interval.of(mean_interval(exceeds, bootstrap)), meaning)


def _repair(
    results: xr.Dataset,
    effects: Effects,
    kind: SublayerKind,
    fit: xr.Dataset,
    shares: xr.Dataset,
    bootstrap: Bootstrap,
) -> Iterator[Finding]:
    """How much of the effect of one kind of layer is compensated for, and at which layers (Figure 7)."""
    name = _NAME[kind]
    # The paper's numbers are of attention.
    where, r2, share, partial = ("23 of 32", "0.92", "about 0.7", "past 13 of 32") if kind == "attn" else [""] * 4
    profile = {str(key): Interval.of(value) for key, value in repair_profile(effects, kind, bootstrap).items()}
    best, strong = best_sublayer_held_out(effects, kind, bootstrap), strongest_component(effects, kind)

    yield Finding(f"best {name} layer", profile["best"], "highest R² of CE on DE", where, whole=True)
    if best is not None:
        held, line = best
        where = held.named
        pooled = "; two parts, pooled" if held.pooled else ""
        chosen = f"chosen on one half of the prompts, measured on the other{pooled}"
        yield Finding(f"R² at {where}", Interval.of(line["r2"]), f"of CE on DE; {chosen}", r2)
        yield Finding(f"slope of CE on DE at {where}", Interval.of(line["slope"]), chosen, share)
        yield from _other_reading(results, effects, held, bootstrap)
    if kind == "attn" and strong is not None:
        meaning = "at the layer with the largest mean DE"
        yield Finding(f"slope of CE on DE at {strong}", Interval.at(fit["slope"], strong), meaning, share)
        average = Interval.at(shares["compensated"], strong)
        yield Finding(f"CE/DE at {strong}", average, "the ratio of their means")
    of_all = f"of {profile['slopes'].estimate:g}"
    yield Finding(f"{name} layers with slope above 0", profile["repairing"], of_all, whole=True)
    yield Finding(f"{name} layers with slope below 1", profile["partial"], of_all, whole=True)
    meaning = f"from this layer on every {name} layer’s slope is below 1"
    yield Finding(
        f"all {name} slopes below 1 from", profile["partial_from"], meaning, partial, whole=True, nowhere=depth(effects)
    )


def _other_reading(results: xr.Dataset, effects: Effects, held: HeldOut, bootstrap: Bootstrap) -> Iterator[Finding]:
    """The slope and R² of the best layer under the other reading of σ, which they depend on."""
    if effects.readout_before >= 0:
        return
    sigma: Sigma = "own" if effects.sigma == "clean" else "clean"
    other = budget(per_prompt(results.sel(ablated=list(dict.fromkeys(held.picks))), effects.readout, sigma))
    again = regression(held.take(other["contribution"]), held.take(other["compensated"]), bootstrap)
    for name, title in (("r2", "R²"), ("slope", "slope of CE on DE")):
        yield Finding(f"{title}, read otherwise", Interval.of(again[name]), f"the same, {SIGMA_NAME[sigma]}")


def _response(effects: Effects, bootstrap: Bootstrap) -> Iterator[Finding]:
    """What responds to the ablation of attention: how many layers, erasure, and the shift to MLPs."""
    attention = of_kind(effects, "ablated", "attn")
    reached = localisation(attention, LOCALISATION_SHARE)
    reached = reached.isel(ablated=(reached["available"] > 0).values)
    if reached.sizes["ablated"]:
        chosen = strongest(direct_effect(attention).sel(ablated=reached["ablated"]))
        changed = reached["changed"].sel(ablated=chosen).drop_vars("ablated")
        available = float(reached["available"].sel(ablated=chosen).mean())
        yield Finding(
            "attention layers that respond",
            Interval.of(mean_interval(changed, bootstrap)),
            f"|ΔDE| > {LOCALISATION_SHARE:.0%} of DE at each prompt’s strongest layer, of {available:.1f} downstream",
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
        meaning = "from this ablated layer on MLPs answer more than attention"
        yield Finding(
            "response passes to MLPs at layer", shift, meaning, "by 22 of 32", whole=True, nowhere=depth(effects)
        )
