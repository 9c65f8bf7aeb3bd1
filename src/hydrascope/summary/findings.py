"""The findings of a run, as numbers with confidence intervals: what the paper reports of its own model."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import xarray as xr

from hydrascope.counted import counted
from hydrascope.measures import (
    BOUNDS,
    SIGMA_NAME,
    Bootstrap,
    HeldOut,
    LayerKind,
    PartKind,
    Sigma,
    agreement,
    all_free,
    amounts,
    at_readout,
    best_layer_held_out,
    caption,
    compensable,
    compensation_regression,
    depth,
    direct_effect,
    effects_alone,
    erasure,
    kinds,
    localisation,
    mean_interval,
    of_kind,
    one_by_one,
    outcome_bounds,
    per_prompt,
    regression,
    repair_profile,
    require_complete,
    response_shift,
    restoration,
    simultaneous,
    strength,
    strongest,
    with_direct_effect,
)
from hydrascope.summary.numbers import Interval
from hydrascope.summary.verdict import Verdict, verdicts
from hydrascope.summary.warnings import EFFECTS_ALONE, of_prompts, warnings_of
from hydrascope.summary.who_repairs import Pair, Reaction, pairs, reactions

#: A downstream attention layer takes part in the response if it changes by more than this share of DE.
LOCALISATION_SHARE = 0.1
#: An MLP is late from this share of the network's depth on.
LATE = 0.5

_NAME: dict[LayerKind, str] = {"attn": "attention", "mlp": "MLP"}
_PLURAL: dict[PartKind, str] = {
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


@dataclass(frozen=True)
class PartFindings:
    """One ablated part: what its ablation removes, what of it is restored and by what, and how CE follows DE.

    Attributes:
        ablated: its label.
        kind: as in `hydrascope.measures.PartKind`.
        direct: mean direct effect, in logits; NaN, as all that is derived from it, where it wasn't read.
        removed: mean −`direct`, in logits.
        lost: mean −`total`, in logits.
        restored: 1 − lost/removed.
        attention, mlp, norm: the shares of what is removed that each restores; they add up to `restored`.
        slope, r2: of the regression of CE on DE over prompts.
        correlation: of DE and `lost` over prompts.
    """

    ablated: str
    kind: str
    direct: Interval
    removed: Interval
    lost: Interval
    restored: Interval
    attention: Interval
    mlp: Interval
    norm: Interval
    slope: Interval
    r2: Interval
    correlation: Interval

    @property
    def adds(self) -> bool:
        """Whether ablating it adds directly instead of removing, surely: there is a share of what it does.

        Then `restored` is the share of the increase that is undone.
        """
        return self.removed.estimate < 0 and bool(np.isfinite(self.restored.low))


@dataclass(frozen=True)
class Summary:
    """What a run found.

    Attributes:
        run: what was measured and how, by name.
        verdicts: whether anything is restored, of each kind of ablated part; none where nothing is removed directly.
        warnings: what a reader should know before believing the numbers.
        findings: the paper's findings, for this model.
        parts: every ablated part, in the order of the results; where effects alone were kept only what it removes,
            loses and has restored is known of it.
        bootstrap: how the intervals were drawn.
        reactions: who restores what, of a result of `hydrascope.Mediation`.
        pairs: who covers for whom, of a result of `hydrascope.Interactions`.
    """

    run: dict[str, str]
    verdicts: tuple[Verdict, ...]
    warnings: tuple[str, ...]
    findings: tuple[Finding, ...]
    parts: tuple[PartFindings, ...]
    bootstrap: Bootstrap
    reactions: tuple[Reaction, ...] = ()
    pairs: tuple[Pair, ...] = ()


def summarise(
    results: xr.Dataset, bootstrap: Bootstrap | None = None, readout: str | None = None, sigma: Sigma | None = None
) -> Summary:
    """The verdict, and every finding of the paper that these results can tell of, with intervals over prompts.

        summarise(hydrascope.open_results("results.zarr")).verdicts[0].answer

    Args:
        readout, sigma: as in `hydrascope.measures.per_prompt`.

    Raises:
        HydrascopeError: this is no result, or an unfinished one, or has no such readout.
    """
    bootstrap = bootstrap or Bootstrap()
    if results.attrs.get("experiment") == "interactions":
        return _of_interactions(results, readout, bootstrap)
    if results.attrs.get("experiment") == "mediation":
        plain = summarise(all_free(results), bootstrap, readout, sigma)
        return replace(plain, reactions=reactions(results, readout, bootstrap))
    if results.attrs.get("keep") == "effects":
        return _of_effects(results, readout, bootstrap)
    effects = per_prompt(results, readout, sigma)
    require_complete(effects)
    if not effects["direct"].any():
        return _of_losses(results, effects, bootstrap)
    read = with_direct_effect(effects)
    fit, shares = compensation_regression(read, bootstrap), restoration(effects, bootstrap)
    findings = [*_restored(effects, shares), *_disagreement(read, bootstrap)]
    for kind in _NAME:
        if compensable(of_kind(effects, "ablated", kind)).any():
            findings += _repair(results, effects, kind, fit, shares, bootstrap)
            if kind == "attn":
                findings += _response(effects, bootstrap)
    per_part = {
        **{str(name): shares[name] for name in ("restored", "attention", "mlp", "norm")},
        **{str(name): fit[name] for name in ("slope", "r2")},
        "correlation": agreement(read, bootstrap)["correlation"],
        "direct": mean_interval(direct_effect(read), bootstrap),
        "removed": mean_interval(-effects["direct"], bootstrap),
        "lost": mean_interval(-effects["total"], bootstrap),
    }
    found = verdicts(results, effects, bootstrap)
    told = warnings_of(effects, found, bootstrap)
    return Summary(
        run_in_words(results, effects),
        found,
        told,
        tuple(findings),
        tuple(_parts(effects, per_part)),
        bootstrap,
    )


def _of_interactions(results: xr.Dataset, readout: str | None, bootstrap: Bootstrap) -> Summary:
    """Who covers for whom, and of single ablations what becomes of their effects."""
    found = pairs(results, readout, bootstrap)
    parts = len({name for pair in found for name in (pair.first, pair.second)})
    unit, read = results.attrs.get("units", "logits"), str(at_readout(results, readout)["readout"].values)
    run = _run(results, f"{counted(len(found), 'pair', 'pairs')} of {parts:,} parts", read)
    told, alone = tuple(of_prompts(results)), effects_alone(one_by_one(results), readout)
    return Summary({**run, "unit": str(unit)}, (), told, (), _outcomes(alone, bootstrap), bootstrap, pairs=found)


def _of_effects(results: xr.Dataset, readout: str | None, bootstrap: Bootstrap) -> Summary:
    """What can be said where effects alone were kept: how much is restored, not by whom."""
    effects = effects_alone(results, readout)
    told = (EFFECTS_ALONE, *of_prompts(results))
    return Summary(run_in_words(results, effects), (), told, (), _outcomes(effects, bootstrap), bootstrap)


def _outcomes(effects: xr.Dataset, bootstrap: Bootstrap) -> tuple[PartFindings, ...]:
    found = outcome_bounds(effects, bootstrap)
    # Where only positions before the last are ablated nothing is known of what would have been removed.
    known = {"removed": "removed", "restored": "share"} if effects["direct"].any() else {}
    return tuple(_parts(effects, {name: found[of] for name, of in {"lost": "lost", **known}.items()}))


def _of_losses(results: xr.Dataset, effects: xr.Dataset, bootstrap: Bootstrap) -> Summary:
    """What can be said where only positions before the last are ablated: nothing is removed directly, and nothing is
    known of what would have been."""
    lost = mean_interval(-effects["total"], bootstrap)
    findings = []
    for kind in dict.fromkeys(kinds(effects["ablated"])):
        samples = of_kind(-effects["total"], "ablated", kind).rename("lost").to_dataset()  # type: ignore[arg-type]
        # The most of many is easily above 0 where none is: bounds that hold for all know of the others.
        of_one = simultaneous(lambda means: means, samples, bootstrap, "ablated")["lost"]
        most = str(of_one["ablated"].values[int(of_one.sel(bound="estimate").argmax("ablated"))])
        meaning = f"−total; the most of the {_PLURAL[kind]}, with bounds that hold for all of them"  # type: ignore[index]
        findings.append(Finding(f"lost at {most}", Interval.at(of_one, most), meaning))
    told = (
        "only positions before the last are ablated: nothing is removed directly, so that nothing can be said of how "
        "much is restored",
        *warnings_of(effects, (), bootstrap),
    )
    parts = tuple(_parts(effects, {"lost": lost}))
    return Summary(run_in_words(results, effects), (), told, tuple(findings), parts, bootstrap)


def strongest_part(effects: xr.Dataset, kind: PartKind) -> str | None:
    """The ablated part of one kind with the largest mean direct effect, among those with anything downstream.

    By what is removed, where the direct effect wasn't read; None if there is no such part.
    """
    chosen = of_kind(effects.isel(ablated=compensable(effects).values), "ablated", kind)
    return str(strongest(strength(chosen).mean("prompt")).item()) if chosen.sizes["ablated"] else None


def run_in_words(results: xr.Dataset, effects: xr.Dataset) -> dict[str, str]:
    """What was measured and how.

    Args:
        effects: of `results`, as `hydrascope.measures.per_prompt` gives them.
    """
    return _run(results, _counted(effects), caption(effects))


def _counted(effects: xr.Dataset) -> str:
    """How many parts of each kind were ablated, in words."""
    found = kinds(effects["ablated"])
    named = ((found.count(kind), several) for kind, several in _PLURAL.items())
    return ", ".join(counted(count, several.removesuffix("s"), several) for count, several in named if count)


def _run(results: xr.Dataset, ablated: str, readout: str) -> dict[str, str]:
    """What was measured and how."""
    names = ("model", "ablation", "positions", "engine", "dtype", "seed")
    sets = {"of": str(results.attrs["prompts"])} if "prompts" in results.attrs else {}
    return {name: str(results.attrs[name]) for name in names if name in results.attrs} | {
        "unit": str(results.attrs.get("units", "logits")),
        "prompts": f"{results.sizes['prompt']:,}",
        **sets,
        "patches": str(results.sizes.get("patch", "averaged")),
        "ablated": ablated,
        "readout": readout,
    }


def _parts(effects: xr.Dataset, per_part: dict[str, xr.DataArray]) -> Iterator[PartFindings]:
    """Every ablated part's numbers."""
    values = {name: bounds.transpose("ablated", "bound").values for name, bounds in per_part.items()}
    rows = {name: {str(label): i for i, label in enumerate(b["ablated"].values)} for name, b in per_part.items()}
    unknown = np.full(len(BOUNDS), np.nan)
    for label, kind in zip(map(str, effects["ablated"].values), kinds(effects["ablated"]), strict=True):
        found = {name: values[name][at[label]] if label in at else unknown for name, at in rows.items()}
        found = {field.name: found.get(field.name, unknown) for field in fields(PartFindings)[2:]}
        yield PartFindings(label, kind, **{name: Interval(*map(float, bounds)) for name, bounds in found.items()})


def _restored(effects: xr.Dataset, shares: xr.Dataset) -> Iterator[Finding]:
    """How much of what an ablation removes is restored, and by what, at the strongest part of each kind."""
    for kind in _PLURAL:
        strong = strongest_part(effects, kind)
        if strong is None or kind == "joint":
            continue
        how = f"1 − lost/removed, the ratio of means, at the strongest of the {_PLURAL[kind]}"
        yield Finding(f"restored at {strong}", Interval.at(shares["restored"], strong).if_bounded, how)
        slope = Interval.at(shares["restored_slope"], strong)
        yield Finding(f"slope of restored on removed at {strong}", slope, "of total − direct on −direct over prompts")
        for name, by in (("attention", "attention"), ("mlp", "MLPs"), ("norm", "the norm")):
            share = Interval.at(shares[name], strong).if_bounded
            yield Finding(f"  of it by {by}", share, "share of what is removed")


def _disagreement(read: xr.Dataset, bootstrap: Bootstrap) -> Iterator[Finding]:
    """How often ablation costs less than unembedding lets expect (Figure 2)."""
    groups: tuple[tuple[str, tuple[PartKind, ...]], ...] = (
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
    effects: xr.Dataset,
    kind: LayerKind,
    fit: xr.Dataset,
    shares: xr.Dataset,
    bootstrap: Bootstrap,
) -> Iterator[Finding]:
    """How much of the effect of one kind of layer is compensated for, and at which layers (Figure 7)."""
    name = _NAME[kind]
    # The paper's numbers are of attention.
    where, r2, share, partial = ("23 of 32", "0.92", "about 0.7", "past 13 of 32") if kind == "attn" else [""] * 4
    profile = {str(key): Interval.of(value) for key, value in repair_profile(effects, kind, bootstrap).items()}
    best, strong = best_layer_held_out(effects, kind, bootstrap), strongest_part(effects, kind)

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


def _other_reading(results: xr.Dataset, effects: xr.Dataset, held: HeldOut, bootstrap: Bootstrap) -> Iterator[Finding]:
    """The slope and R² of the best layer under the other reading of σ, which they depend on."""
    if results is effects or effects.attrs["readout_before"] >= 0:
        return
    sigma: Sigma = "own" if effects.attrs["sigma"] == "clean" else "clean"
    other = amounts(per_prompt(results.sel(ablated=list(dict.fromkeys(held.picks))), effects.attrs["readout"], sigma))
    again = regression(held.take(other["contribution"]), held.take(other["compensated"]), bootstrap)
    for name, title in (("r2", "R²"), ("slope", "slope of CE on DE")):
        yield Finding(f"{title}, read otherwise", Interval.of(again[name]), f"the same, {SIGMA_NAME[sigma]}")


def _response(effects: xr.Dataset, bootstrap: Bootstrap) -> Iterator[Finding]:
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
    strong = str(strongest_part(effects, "attn"))
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
        shift = Interval.of(response_shift(effects, "attn", bootstrap)["layer"])
        meaning = "from this ablated layer on MLPs answer more than attention"
        yield Finding(
            "response passes to MLPs at layer", shift, meaning, "by 22 of 32", whole=True, nowhere=depth(effects)
        )
