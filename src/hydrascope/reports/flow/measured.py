"""The numbers of the repair flow, measured from a sweep, a mediation, or both."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from hydrascope import measures
from hydrascope.components.component import Component, Override
from hydrascope.components.experiments import result_kind
from hydrascope.measures import Bootstrap, Effects, Sigma, block_numbers, kinds
from hydrascope.reports.flow.matching import require_same_measurement
from hydrascope.reports.flow.repair import Head, Mediator, RepairFlow, Sublayer
from hydrascope.reports.flow.source import source_of
from hydrascope.reports.summary.interval import UNKNOWN, Interval
from hydrascope.reports.summary.verdict import Verdict, verdicts
from hydrascope.reports.summary.verdict_text import NOTABLE, clearest_verdict
from hydrascope.utils.errors import HydrascopeError


def repair_flow(
    results: xr.Dataset,
    ablated: str | None = None,
    *,
    mediation: xr.Dataset | None = None,
    readout: str | None = None,
    sigma: Sigma | None = None,
    bootstrap: Bootstrap | None = None,
    found: Sequence[Verdict] | None = None,
) -> RepairFlow:
    """Return the numbers of one ablation's repair flow.

        >>> flow = hs.reports.flow.repair_flow(results, "attn.3")
        >>> made_up = flow.attention.estimate + flow.mlp.estimate + flow.norm.estimate
        >>> abs(flow.removed.estimate - made_up - flow.lost.estimate) < 1e-4
        True

    Args:
        results: of a sweep, or of a mediation, which then also gives the frozen runs.
        ablated: the label of the ablation; by default the component that the summary chooses.
        mediation: the results of a mediation of the same prompts, with the same options.
        readout: the readout's label; by default the first.
        sigma: the reading of σ, as in `hydrascope.measures.per_prompt`.
        bootstrap: the resampling that gives the intervals. Their level is that of the verdict on this kind of
            component.
        found: the verdicts on `results`, if they are known already.

    Raises:
        HydrascopeError: the results can't be read, lack the ablation or the readout, or don't match the mediation; or
            no ablation is named and the summary chooses none.
    """
    if result_kind(results.attrs) == "mediation" and mediation is None:
        mediation = results
    alone = measures.single_ablations(results)
    effects, bootstrap = measures.per_prompt(alone, readout, sigma), bootstrap or Bootstrap()
    return flow_of(alone, effects, ablated, mediation, bootstrap, found)


def flow_of(
    alone: xr.Dataset,
    effects: Effects,
    ablated: str | None,
    mediation: xr.Dataset | None,
    bootstrap: Bootstrap,
    found: Sequence[Verdict] | None = None,
) -> RepairFlow:
    """Return `repair_flow` from single ablations and their effects, if these are read already.

    Raises:
        HydrascopeError: as `repair_flow`.
    """
    measures.require_complete(effects)
    found = verdicts(alone, effects, bootstrap) if found is None else found
    labels = list(map(str, effects["ablated"].values))
    mediated = (
        [] if mediation is None else [str(label) for label in mediation["ablated"].values if "|" not in str(label)]
    )
    label = ablated or chosen(found, mediated)
    if label is None:
        raise HydrascopeError("the summary chooses no component for the repair flow: name an ablation")
    if label not in labels:
        raise HydrascopeError(f"this run doesn't ablate {label}: choose among {_some(labels)}")
    if mediation is not None and label in mediated:
        require_same_measurement(alone, mediation, label, effects.readout)
    else:
        mediation = None
    one = effects.sel(ablated=[label])
    verdict = next((each for each in found if each.kind == kinds(one["ablated"])[0]), None)
    level = bootstrap if verdict is None else replace(bootstrap, confidence=verdict.confidence)
    flow = replace(
        _with_amounts(one, label, level),
        heads=tuple(_heads(alone, one, level)),
        heads_each=int(alone.attrs.get("heads", 0)),
    )
    removed = flow.removed.estimate
    frozen = () if mediation is None else _mediators(mediation, label, one, removed, level)
    return _with_choice(replace(flow, mediators=frozen), verdict)


def chosen(found: Sequence[Verdict], mediated: Sequence[str] = ()) -> str | None:
    """Return the label of the component that the summary chooses.

    If there are mediated ones, it is one of them. The clearest verdict counts. If the halves of the prompts chose two
    components, it is the first. None if there is no choice.
    """
    known = [each for each in found if each.component]
    among = [each for each in known if _first(each) in mediated] or known
    if not among:
        return mediated[0] if mediated else None
    return (
        _first(clearest_verdict(among)) if _first(clearest_verdict(among)) in mediated or not mediated else mediated[0]
    )


def _first(verdict: Verdict) -> str:
    return verdict.component.partition(" or ")[0]


def _with_choice(flow: RepairFlow, verdict: Verdict | None) -> RepairFlow:
    """Add the share on held-out prompts, or the rival that the other half of the prompts chose."""
    picks = verdict.component.split(" or ") if verdict is not None else []
    if verdict is None or flow.ablated not in picks:
        return flow
    if verdict.pooled:
        return replace(flow, rival=next(each for each in picks if each != flow.ablated))
    return replace(flow, held_out=verdict.restored)


def _with_amounts(one: Effects, label: str, bootstrap: Bootstrap) -> RepairFlow:
    """Return the amounts and the sublayers of one ablation, `one` holding it alone."""
    samples = measures.budget(one).isel(ablated=0)
    means = measures.interval(lambda each: each, samples, bootstrap)
    shares = measures.budget_shares(samples, bootstrap)
    compensation = measures.regression(samples["contribution"], samples["compensated"], bootstrap)["slope"]
    override = Override.parse(label)
    return RepairFlow(
        source=source_of(one),
        ablated=label,
        components=tuple(map(str, override.ablated)),
        confidence=bootstrap.confidence,
        removed=Interval.of(means["removed"]),
        written=Interval.of(means["contribution"]),
        attention=Interval.of(means["attention"]),
        mlp=Interval.of(means["mlp"]),
        norm=Interval.of(means["norm"]),
        lost=Interval.of(means["lost"]),
        restored=Interval.of(means["restored"]),
        share=Interval.of(shares["restored"]),
        lost_share=Interval.of(shares["lost"]),
        slope=Interval.of(shares["restored_slope"]),
        compensation=Interval.of(compensation),
        half=_half(samples["removed"].values),
        sublayers=tuple(_sublayers(one, set(map(str, override.frozen)), bootstrap)),
    )


def _sublayers(one: Effects, frozen: set[str], bootstrap: Bootstrap) -> list[Sublayer]:
    """Return all sublayers, in the network's order."""
    downstream = one["downstream"].isel(ablated=0).values
    clean = _by_component(measures.mean_interval(one["unembed"], bootstrap))
    moved = measures.change(one).isel(ablated=0, component=downstream).reset_coords(drop=True)
    bounds = measures.simultaneous(lambda each: each, moved.to_dataset(name="moved"), bootstrap, "component")["moved"]
    known = _by_component(bounds)
    is_ablated = one["is_ablated"].isel(ablated=0).values
    labels = [str(name) for name in one["component"].values]
    each = zip(labels, kinds(one["component"]), block_numbers(one["component"]), downstream, is_ablated, strict=True)
    rows = [
        Sublayer(
            name,
            kind,
            block,
            bool(can_respond),
            bool(ablated),
            name in frozen,
            clean[name],
            known.get(name, UNKNOWN),
        )
        for name, kind, block, can_respond, ablated in each
    ]
    return sorted(rows, key=lambda row: (row.block, row.kind))


def _heads(alone: xr.Dataset, one: Effects, bootstrap: Bootstrap) -> Iterator[Head]:
    """Yield the heads that were read and can respond, in the network's order."""
    chosen = measures.select_readout(alone, one.readout).sel(ablated=one["ablated"].values[0])
    before = int(chosen["readout_before"])
    places = zip(kinds(chosen["component"]), block_numbers(chosen["component"]), strict=True)
    is_read = np.array([kind == "head" and (before < 0 or block < before) for kind, block in places])
    heads = chosen.isel(component=np.flatnonzero(is_read & chosen["downstream"].values.astype(bool)))
    if not heads.sizes["component"]:
        return
    clean, after = (
        heads[name].transpose("prompt", "component").astype(np.float64).drop_attrs()
        for name in ("unembed", measures.WRITTEN[one.sigma])
    )
    moved = (after - clean).reset_coords(drop=True).to_dataset(name="moved")
    bounds = _by_component(measures.simultaneous(lambda each: each, moved, bootstrap, "component")["moved"])
    written = _by_component(measures.mean_interval(clean.reset_coords(drop=True), bootstrap))
    each_group = alone.attrs.get("heads", 0) // max(alone.attrs.get("kv_heads", 0), 1)
    for name in map(str, heads["component"].values):
        place = Component.parse(name)
        group = place.unit // each_group if "kv_heads" in alone.attrs else -1
        yield Head(name, place.block, group, written[name], bounds[name])


def _by_component(values: xr.DataArray) -> dict[str, Interval]:
    """Return the intervals of an array [bound, component] by the label of the component."""
    of = values.transpose("component", "bound").sel(bound=list(measures.BOUNDS))
    return {str(name): Interval(*each) for name, each in zip(of["component"].values, of.values.tolist(), strict=True)}


def _mediators(
    mediation: xr.Dataset, label: str, one: Effects, removed: float, bootstrap: Bootstrap
) -> tuple[Mediator, ...]:
    """Return the mediators downstream of one ablation, with bounds."""
    worth = measures.reactions(mediation, one.readout, bootstrap).sel(ablated=label)
    ways = measures.route_bounds(mediation, label, one.readout, one.sigma, bootstrap)
    least = max(NOTABLE * removed, 0.0)

    def of(name: str) -> Mediator:
        by, alone = (Interval.of(worth[each].sel(mediator=name)) for each in ("restored_by", "restored_alone"))
        itself, others, norm = (Interval.of(ways[each].sel(mediator=name)) for each in measures.ROUTES)
        necessary, sufficient = (each.low > 0 and each.estimate >= least for each in (by, alone))
        return Mediator(name, by, alone, itself, others, norm, necessary, sufficient)

    return tuple(of(str(name)) for name in ways["mediator"].values)


def _half(removed: np.ndarray) -> int:
    """Return the smallest number of prompts that hold half of what is removed; 0 if nothing is."""
    total = removed.sum()
    return int(np.argmax(np.cumsum(np.sort(removed)[::-1]) >= total / 2)) + 1 if total > 0 else 0


def _some(labels: Sequence[str]) -> str:
    return ", ".join(labels[:10]) + (", …" if len(labels) > 10 else "")
