"""The findings of a run, as numbers with confidence intervals: what the paper reports of its own model."""

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import xarray as xr
from rich.console import Group
from rich.table import Table
from rich.text import Text

from hydrascope.components import Kind
from hydrascope.measures import (
    BOUNDS,
    Bootstrap,
    agreement,
    average_patches,
    best_layer,
    compensable,
    compensation_regression,
    direct_effect,
    erasure,
    layers,
    localisation,
    mean_interval,
    of_kind,
    repair_profile,
    require_complete,
    response_shift,
    restoration,
    strongest,
)

#: A downstream attention layer takes part in the response if it changes by more than this share of DE.
LOCALISATION_SHARE = 0.1
#: An MLP is late from this share of the network's depth on.
LATE = 0.5

_NAME: dict[Kind, str] = {"attn": "attention", "mlp": "MLP"}


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


@dataclass(frozen=True)
class Finding:
    """One number that the run establishes.

    Attributes:
        name: what it is, with the layer it was found at.
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
class LayerFindings:
    """One ablated component: the regression of CE on DE, and where went what the ablation took away.

    Attributes:
        ablated: its label.
        direct: mean direct effect, in logits.
        cost: mean −`total`, in logits.
        slope, r2: of the regression of CE on DE over prompts.
        attention, mlp, norm, lost: shares of the removed effect, adding up to 1.
        correlation: of `unembed` and −`total` over prompts.
    """

    ablated: str
    direct: Interval
    cost: Interval
    slope: Interval
    r2: Interval
    attention: Interval
    mlp: Interval
    norm: Interval
    lost: Interval
    correlation: Interval


@dataclass(frozen=True)
class Summary:
    """What a run found.

    Attributes:
        run: what was measured and how, by name.
        findings: the paper's findings, for this model.
        layers: every ablated component, in the order of the results.
        bootstrap: how the intervals were drawn.
    """

    run: dict[str, str]
    findings: tuple[Finding, ...]
    layers: tuple[LayerFindings, ...]
    bootstrap: Bootstrap


def summarise(results: xr.Dataset, bootstrap: Bootstrap | None = None) -> Summary:
    """Every finding of the paper that these results can tell of, with confidence intervals over prompts.

    Raises:
        HydrascopeError: this is no result, or an unfinished one.
    """
    bootstrap = bootstrap or Bootstrap()
    effects = average_patches(results)
    require_complete(effects)
    fit, shares = compensation_regression(effects, bootstrap), restoration(effects, bootstrap)
    per_layer = xr.merge(
        [
            fit[["slope", "r2"]],
            shares,
            agreement(effects, bootstrap)["correlation"],
            mean_interval(direct_effect(effects), bootstrap).rename("direct"),
            mean_interval(-effects["total"], bootstrap).rename("cost"),
        ]
    )
    findings = [*_disagreement(effects, bootstrap)]
    for kind in _NAME:
        if of_kind(compensable(effects), "ablated", kind).any():
            findings += _repair(effects, kind, fit, shares, bootstrap)
            if kind == "attn":
                findings += _response(effects, bootstrap)
    return Summary(_run(results), tuple(findings), tuple(_layers(per_layer)), bootstrap)


def strongest_layer(effects: xr.Dataset, kind: Kind) -> str:
    """The ablated layer of one kind with the largest mean direct effect, among those with anything downstream."""
    direct = of_kind(direct_effect(effects.isel(ablated=compensable(effects).values)), "ablated", kind)
    return str(strongest(direct.mean("prompt")).item())


def _run(results: xr.Dataset) -> dict[str, str]:
    """What was measured and how."""
    sizes = results.sizes
    names = ("model", "ablation", "norm", "engine", "dtype", "seed")
    return {name: str(results.attrs[name]) for name in names if name in results.attrs} | {
        "prompts": f"{sizes['prompt']:,}",
        "patches": str(sizes.get("patch", "averaged")),
        "ablated": f"{sizes['ablated']} of {sizes['component']} components",
    }


def _layers(per_layer: xr.Dataset) -> Iterator[LayerFindings]:
    names = [field.name for field in fields(LayerFindings) if field.name != "ablated"]
    for label in per_layer["ablated"].values:
        at = per_layer.sel(ablated=label)
        yield LayerFindings(str(label), **{name: Interval.of(at[name]) for name in names})


def _disagreement(effects: xr.Dataset, bootstrap: Bootstrap) -> Iterator[Finding]:
    """How often ablation costs less than unembedding lets expect (Figure 2)."""
    exceeds = (direct_effect(effects) > -effects["total"]).mean("ablated")
    meaning = "share of prompts and ablated layers whose ablation costs less than their direct effect"
    yield Finding("Δ unembed > −Δ ablate", Interval.of(mean_interval(exceeds, bootstrap)), meaning)


def _repair(
    effects: xr.Dataset, kind: Kind, fit: xr.Dataset, shares: xr.Dataset, bootstrap: Bootstrap
) -> Iterator[Finding]:
    """How much of the effect of one kind of layer is restored, and at which layers (Figure 7)."""
    name = _NAME[kind]
    # The paper's numbers are of attention.
    where, r2, restored, partial = ("23 of 32", "0.92", "about 0.7", "past 13 of 32") if kind == "attn" else [""] * 4
    profile = {str(key): Interval.of(value) for key, value in repair_profile(effects, kind, bootstrap).items()}
    best, strong = best_layer(fit, kind), strongest_layer(effects, kind)

    def at(layer: str, bounds: xr.DataArray) -> Interval:
        return Interval.of(bounds.sel(ablated=layer))

    yield Finding(f"best {name} layer", profile["best"], "highest R² of CE on DE", where, whole=True)
    if best is not None:
        yield Finding(f"R² at {best}", at(best, fit["r2"]), "variance of CE that DE explains", r2)
        yield Finding(f"restored at {best}", at(best, fit["slope"]), "slope of CE on DE", restored)
    if kind == "attn":
        if strong != best:
            meaning = "slope at the layer with the largest mean DE"
            yield Finding(f"restored at {strong}", at(strong, fit["slope"]), meaning, restored)
        yield Finding(f"restored on average at {strong}", at(strong, shares["restored"]), "mean CE / mean DE")
        yield Finding(f"norm’s share at {strong}", at(strong, shares["norm"]), "of what is removed, by the final norm")
        yield Finding(f"lost at {strong}", at(strong, shares["lost"]), "of what is removed, missing from the logit")
    of_all = f"of {profile['slopes'].estimate:g}"
    yield Finding(f"{name} layers with slope above 0", profile["repairing"], of_all, whole=True)
    yield Finding(f"{name} layers with slope below 1", profile["partial"], of_all, whole=True)
    depth = 1 + max(layers(effects["component"]))
    meaning = f"at this and all {name} layers above ({depth}: nowhere)"
    yield Finding("slopes below 1 from layer", profile["partial_from"], meaning, partial, whole=True)


def _response(effects: xr.Dataset, bootstrap: Bootstrap) -> Iterator[Finding]:
    """What responds to the ablation of attention: how many layers, erasure, and the shift to MLPs."""
    reached = localisation(effects, LOCALISATION_SHARE)
    reached = of_kind(reached.isel(ablated=(reached["available"] > 0).values), "ablated", "attn")
    if reached.sizes["ablated"]:
        chosen = strongest(direct_effect(effects).sel(ablated=reached["ablated"]))
        changed = reached["changed"].sel(ablated=chosen).drop_vars("ablated")
        available = float(reached["available"].sel(ablated=chosen).mean())
        yield Finding(
            "attention layers that respond",
            Interval.of(mean_interval(changed, bootstrap)),
            f"|ΔDE| > {LOCALISATION_SHARE:.0%} of DE at each prompt’s strongest layer, of {available:.1f} downstream",
        )
    strong = strongest_layer(effects, "attn")
    erased = erasure(effects, strong, LATE, bootstrap)
    count = erased.sizes["component"]
    if count:
        erasing = Interval.of(erased["erasing"])
        yield Finding("late MLPs that erase", erasing, f"mean DE below 0, of {count} above {strong}", whole=True)
        yield Finding("of these attenuated", Interval.of(erased["attenuated"]), f"when {strong} is ablated", whole=True)
        yield Finding("erasure that lets go", Interval.of(erased["attenuation"]), f"share, when {strong} is ablated")
    if reached.sizes["ablated"]:
        depth = 1 + max(layers(effects["component"]))
        shift = Interval.of(response_shift(effects, "attn", bootstrap)["layer"])
        nowhere = f"MLPs answer more than attention from here on ({depth}: nowhere)"
        yield Finding("response shifts to MLPs at layer", shift, nowhere, "by 22 of 32", whole=True)


def render(summary: Summary) -> Group:
    """The summary for a terminal: what was run, the findings, and every ablated component."""
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
    per_layer = Table(title="Ablated components", title_justify="left")
    headings = {
        "direct": "DE (logits)",
        "cost": "−total (logits)",
        "slope": "slope",
        "r2": "R²",
        "attention": "attention",
        "mlp": "MLP",
        "norm": "norm",
        "lost": "lost",
        "correlation": "DE ~ −total",
    }
    per_layer.add_column("ablated")
    for name, heading in headings.items():
        per_layer.add_column(heading, justify="right", no_wrap=name in ("slope", "r2"))
    for layer in summary.layers:
        per_layer.add_row(layer.ablated, *(Text(_cell(getattr(layer, name), name)) for name in headings))
    notes = Text(
        "slope, R²: CE regressed on DE over prompts. attention, MLP, norm, lost: where went what the ablation removed, "
        "as shares of its mean. – : not defined.\n"
        f"Intervals: percentile bootstrap over prompts, {summary.bootstrap.resamples:,} resamples, "
        f"seed {summary.bootstrap.seed}.",
        style="dim",
    )
    return Group(run, findings, per_layer, notes)


def _cell(value: Interval, name: str) -> str:
    """A share without bounds is a ratio to what may be 0: nothing to be read from it."""
    if name in ("slope", "r2"):
        return written(value, 2)
    unbounded = name in ("attention", "mlp", "norm", "lost") and np.isnan(value.low)
    return "–" if unbounded else _number(value.estimate, 2)


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
