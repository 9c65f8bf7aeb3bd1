"""The findings of a run, as numbers with confidence intervals: what the paper reports of its own model."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import xarray as xr
from rich.console import Group
from rich.table import Table
from rich.text import Text

from hydrascope.measures import (
    BOUNDS,
    SIGMA_NAME,
    Bootstrap,
    LayerKind,
    PartKind,
    Sigma,
    agreement,
    best_layer,
    caption,
    compensable,
    compensation_regression,
    depth,
    direct_effect,
    erasure,
    kinds,
    localisation,
    mean_interval,
    of_kind,
    per_prompt,
    repair_profile,
    require_complete,
    response_shift,
    restoration,
    strength,
    strongest,
    with_direct_effect,
)

#: A downstream attention layer takes part in the response if it changes by more than this share of DE.
LOCALISATION_SHARE = 0.1
#: An MLP is late from this share of the network's depth on.
LATE = 0.5
#: How many heads and neurons are printed, the strongest.
PRINTED = 20

_NAME: dict[LayerKind, str] = {"attn": "attention", "mlp": "MLP"}
_PLURAL: dict[PartKind, str] = {
    "attn": "attention layers",
    "mlp": "MLP layers",
    "head": "heads",
    "neuron": "neurons",
    "joint": "joint ablations",
}


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence bounds; NaN where there is none."""

    estimate: float
    low: float
    high: float

    @classmethod
    def of(cls, bounds: xr.DataArray) -> "Interval":
        """From an array [bound]."""
        return cls(*(float(bounds.sel(bound=bound)) for bound in BOUNDS))

    @classmethod
    def at(cls, bounds: xr.DataArray, ablated: str) -> "Interval":
        """From an array [bound, ablated]; unknown where there is no such part."""
        known = ablated in bounds["ablated"].values
        return cls.of(bounds.sel(ablated=ablated)) if known else cls(np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class Finding:
    """One number that the run establishes.

    Attributes:
        name: what it is, with the part it was found at.
        value: a share, a count of layers, or a layer's number.
        meaning: how it is computed, in a line.
        paper: what the paper reports of Chinchilla 7B, empty where it gives no number.
        whole: whether it counts or names layers.
    """

    name: str
    value: Interval
    meaning: str
    paper: str = ""
    whole: bool = False


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
        correlation: of `unembed` and −`total` over prompts.
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


@dataclass(frozen=True)
class Summary:
    """What a run found.

    Attributes:
        run: what was measured and how, by name.
        findings: the paper's findings, for this model.
        parts: every ablated part, in the order of the results.
        bootstrap: how the intervals were drawn.
    """

    run: dict[str, str]
    findings: tuple[Finding, ...]
    parts: tuple[PartFindings, ...]
    bootstrap: Bootstrap


def summarise(
    results: xr.Dataset, bootstrap: Bootstrap | None = None, readout: str | None = None, sigma: Sigma | None = None
) -> Summary:
    """Every finding of the paper that these results can tell of, with confidence intervals over prompts.

        print(render(summarise(hydrascope.open_results("results.zarr"))))

    Args:
        readout, sigma: as in `hydrascope.measures.per_prompt`.

    Raises:
        HydrascopeError: this is no result, or an unfinished one, or has no such readout.
    """
    bootstrap = bootstrap or Bootstrap()
    effects = per_prompt(results, readout, sigma)
    require_complete(effects)
    if not effects["direct"].any():
        return _of_losses(results, effects, bootstrap)
    read = with_direct_effect(effects)
    fit, shares = compensation_regression(read, bootstrap), restoration(effects, bootstrap)
    findings = [*_restored(effects, shares), *_disagreement(read, bootstrap)]
    for kind in _NAME:
        if compensable(of_kind(effects, "ablated", kind)).any():
            findings += _repair(effects, kind, fit, shares, bootstrap)
            findings += _other_reading(results, effects, kind, fit, bootstrap)
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
    return Summary(_run(results, effects), tuple(findings), tuple(_parts(effects, per_part)), bootstrap)


def _of_losses(results: xr.Dataset, effects: xr.Dataset, bootstrap: Bootstrap) -> Summary:
    """What can be said where only positions before the last are ablated: nothing is removed directly, and nothing is
    known of what would have been."""
    lost = mean_interval(-effects["total"], bootstrap)
    findings = []
    for kind in dict.fromkeys(kinds(effects["ablated"])):
        of_one = of_kind(lost, "ablated", kind)  # type: ignore[arg-type]
        most = str(of_one["ablated"].values[int(of_one.sel(bound="estimate").argmax("ablated"))])
        findings.append(Finding(f"lost at {most}", Interval.at(lost, most), f"−total; the most of the {_PLURAL[kind]}"))  # type: ignore[index]
    return Summary(_run(results, effects), tuple(findings), tuple(_parts(effects, {"lost": lost})), bootstrap)


def strongest_part(effects: xr.Dataset, kind: PartKind) -> str | None:
    """The ablated part of one kind with the largest mean direct effect, among those with anything downstream.

    By what is removed, where the direct effect wasn't read; None if there is no such part.
    """
    chosen = of_kind(effects.isel(ablated=compensable(effects).values), "ablated", kind)
    return str(strongest(strength(chosen).mean("prompt")).item()) if chosen.sizes["ablated"] else None


def _run(results: xr.Dataset, effects: xr.Dataset) -> dict[str, str]:
    """What was measured and how."""
    names = ("model", "ablation", "positions", "engine", "dtype", "seed")
    found = kinds(effects["ablated"])
    return {name: str(results.attrs[name]) for name in names if name in results.attrs} | {
        "unit": str(results.attrs.get("units", "logits")),
        "prompts": f"{results.sizes['prompt']:,}",
        "patches": str(results.sizes.get("patch", "averaged")),
        "ablated": ", ".join(f"{found.count(kind):,} {kind}" for kind in _PLURAL if kind in found),
        "readout": caption(effects),
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
        how = f"1 − lost / removed; the strongest of the {_PLURAL[kind]}"
        yield Finding(f"restored at {strong}", _if_bounded(Interval.at(shares["restored"], strong)), how)
        slope = Interval.at(shares["restored_slope"], strong)
        yield Finding(f"restored at {strong}, slope", slope, "of total − direct on −direct over prompts")
        for name, by in (("attention", "attention"), ("mlp", "MLPs"), ("norm", "the norm")):
            share = _if_bounded(Interval.at(shares[name], strong))
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
            meaning = f"share of prompts and ablated {name} whose ablation costs less than their direct effect"
            which = "" if name == "layers" else f", {name}"
            yield Finding(f"Δ unembed > −Δ ablate{which}", Interval.of(mean_interval(exceeds, bootstrap)), meaning)


def _repair(
    effects: xr.Dataset, kind: LayerKind, fit: xr.Dataset, shares: xr.Dataset, bootstrap: Bootstrap
) -> Iterator[Finding]:
    """How much of the effect of one kind of layer is compensated for, and at which layers (Figure 7)."""
    name = _NAME[kind]
    # The paper's numbers are of attention.
    where, r2, share, partial = ("23 of 32", "0.92", "about 0.7", "past 13 of 32") if kind == "attn" else [""] * 4
    profile = {str(key): Interval.of(value) for key, value in repair_profile(effects, kind, bootstrap).items()}
    best, strong = best_layer(fit, kind), strongest_part(effects, kind)

    yield Finding(f"best {name} layer", profile["best"], "highest R² of CE on DE", where, whole=True)
    if best is not None:
        yield Finding(f"R² at {best}", Interval.at(fit["r2"], best), "variance of CE that DE explains", r2)
        yield Finding(f"compensated at {best}", Interval.at(fit["slope"], best), "slope of CE on DE", share)
    if kind == "attn" and strong is not None:
        if strong != best:
            meaning = "slope at the layer with the largest mean DE"
            yield Finding(f"compensated at {strong}", Interval.at(fit["slope"], strong), meaning, share)
        average = Interval.at(shares["compensated"], strong)
        yield Finding(f"compensated on average at {strong}", average, "mean CE / mean DE")
    of_all = f"of {profile['slopes'].estimate:g}"
    yield Finding(f"{name} layers with slope above 0", profile["repairing"], of_all, whole=True)
    yield Finding(f"{name} layers with slope below 1", profile["partial"], of_all, whole=True)
    meaning = f"at this and all {name} layers above ({depth(effects)}: nowhere)"
    yield Finding("slopes below 1 from layer", profile["partial_from"], meaning, partial, whole=True)


def _other_reading(
    results: xr.Dataset, effects: xr.Dataset, kind: LayerKind, fit: xr.Dataset, bootstrap: Bootstrap
) -> Iterator[Finding]:
    """The slope and R² of the best layer under the other reading of σ, which they depend on."""
    best = best_layer(fit, kind)
    if best is None or results is effects or effects.attrs["readout_before"] >= 0:
        return
    sigma: Sigma = "own" if effects.attrs["sigma"] == "clean" else "clean"
    other = per_prompt(results.sel(ablated=[best]), effects.attrs["readout"], sigma)
    again = compensation_regression(other, bootstrap)
    for name, title in (("r2", "R²"), ("slope", "compensated")):
        value = Interval.at(again[name], best)
        yield Finding(f"{title} at {best}, read otherwise", value, f"the same, {SIGMA_NAME[sigma]}")


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
        yield Finding("of these attenuated", Interval.of(erased["attenuated"]), f"when {strong} is ablated", whole=True)
        yield Finding("erasure that lets go", Interval.of(erased["attenuation"]), f"share, when {strong} is ablated")
    if reached.sizes["ablated"]:
        shift = Interval.of(response_shift(effects, "attn", bootstrap)["layer"])
        nowhere = f"MLPs answer more than attention from here on ({depth(effects)}: nowhere)"
        yield Finding("response shifts to MLPs at layer", shift, nowhere, "by 22 of 32", whole=True)


def render(summary: Summary) -> Group:
    """The summary for a terminal: what was run, the findings, and the ablated parts."""
    run = Text("  ".join(f"{name} {value}" for name, value in summary.run.items()), style="dim")
    level = f"{summary.bootstrap.confidence:.0%}"
    findings = Table(title=f"Findings, with {level} confidence intervals", title_justify="left")
    findings.add_column("finding")
    findings.add_column("this run", justify="right", no_wrap=True)
    findings.add_column("Chinchilla 7B", justify="right")
    findings.add_column("how", style="dim")
    for each in summary.findings:
        value = written(each.value, 0 if each.whole else 2)
        findings.add_row(Text(each.name), Text(value), Text(each.paper), Text(each.meaning))
    per_part = Table(title="Ablated parts", title_justify="left")
    unit = summary.run["unit"]
    headings = {
        "direct": f"DE ({unit})",
        "removed": f"removed ({unit})",
        "lost": f"lost ({unit})",
        "restored": "restored",
        "attention": "attention",
        "mlp": "MLP",
        "norm": "norm",
        "slope": "slope",
        "r2": "R²",
        "correlation": "DE ~ lost",
    }
    shown = _printed(summary.parts)
    # What no part has is left out.
    known = [name for name in headings if any(np.isfinite(getattr(part, name).estimate) for part in shown)]
    per_part.add_column("ablated", overflow="fold")
    for name in known:
        per_part.add_column(headings[name], justify="right", no_wrap=name in ("slope", "r2"))
    for part in shown:
        per_part.add_row(part.ablated, *(Text(_cell(getattr(part, name), name)) for name in known))
    left_out = len(summary.parts) - len(shown)
    few = f"Of heads and neurons the {PRINTED} that remove most; {left_out:,} are left out.\n" if left_out else ""
    if "removed" not in known:
        few += (
            "Only positions before the last are ablated: nothing is removed directly, so nothing can be said of how "
            "much is restored.\n"
        )
    notes = Text(
        f"{few}removed, lost: mean −direct and −total. restored: 1 − lost/removed; attention, MLP, norm: the shares of "
        "what is removed that each restores. slope, R²: CE regressed on DE over prompts. – : not defined.\n"
        f"Readout: {summary.run['readout']}.\n"
        f"Intervals: percentile bootstrap over prompts, {summary.bootstrap.resamples:,} resamples, "
        f"seed {summary.bootstrap.seed}.",
        style="dim",
    )
    return Group(run, *([findings] if summary.findings else []), per_part, notes)


def _printed(parts: tuple[PartFindings, ...]) -> list[PartFindings]:
    """All layers and joint ablations, and the heads and neurons whose ablation removes most, or else loses most."""
    units = [part for part in parts if part.kind in ("head", "neuron")]
    weak = sorted(units, key=lambda part: (-np.nan_to_num(part.removed.estimate), -part.lost.estimate))[PRINTED:]
    left_out = {part.ablated for part in weak}
    return [part for part in parts if part.ablated not in left_out]


def _cell(value: Interval, name: str) -> str:
    if name in ("slope", "r2"):
        return written(value, 2)
    is_share = name in ("restored", "attention", "mlp", "norm")
    return _number((_if_bounded(value) if is_share else value).estimate, 2)


def _if_bounded(share: Interval) -> Interval:
    """A share without bounds is a ratio to what may be 0: nothing to be read from it."""
    return share if np.isfinite(share.low) else Interval(np.nan, np.nan, np.nan)


def written(value: Interval, digits: int) -> str:
    """`0.71 [0.68, 0.74]`; without bounds where there are none."""
    estimate = _number(value.estimate, digits)
    if np.isnan(value.low) or np.isnan(value.high):
        return estimate
    return f"{estimate} [{_number(value.low, digits)}, {_number(value.high, digits)}]"


def _number(value: float, digits: int) -> str:
    if np.isnan(value):
        return "–"
    # Rounding may leave a minus before nothing.
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")
