"""Verdicts: whether an ablation's direct effect is restored, how much, and by whom."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import xarray as xr

from hydrascope.components.component import SUBLAYER_KINDS
from hydrascope.measures import (
    FEWEST,
    MIN_SHARE,
    NEGLIGIBLE,
    PARTS,
    WRITTEN,
    Answered,
    Bootstrap,
    ComponentKind,
    Effects,
    HeldOut,
    budget_shares,
    candidates,
    change,
    compensable,
    held_out,
    interval,
    kinds,
    mean_interval,
    most_restored,
    none_above_threshold,
    select_readout,
    simultaneous,
    three_answers,
)
from hydrascope.reports.summary.interval import UNKNOWN, Interval

Answer = Literal["yes", "no", "can't tell"]

#: The kinds of components that have a verdict of their own.
ASKED: tuple[ComponentKind, ...] = ("attn", "mlp", "head", "neuron", "feature")


@dataclass(frozen=True)
class Responder:
    """A sublayer, head or neuron that responds to an ablation.

    Attributes:
        name: the component's label.
        response: the mean change of what it adds to the readout, as a share of what the ablation removes; the bounds
            hold for all responders at once.
    """

    name: str
    response: Interval


@dataclass(frozen=True)
class Verdict:
    """The answers for one kind of ablated component, and the numbers of one component.

    It is the one with the largest share restored. The numbers are measured on held-out prompts: prompts that had no say
    in the choice of the component.

    Attributes:
        kind: the kind of ablated component.
        answer: whether something is restored at the chosen component. `yes` if the interval of `restored` is above 0.
            `no` if it is below `NEGLIGIBLE` and no component is `clear`, or if surely no component removes enough.
            Else `can't tell`.
        why: the reason for `no` and `can't tell`.
        clear: the number of components with a mean total − direct above 0, by bounds that hold for all at once.
        above_threshold: the number of components that remove more than `MIN_SHARE` of the readout.
        confidence: the level of all intervals, corrected for the number of kinds.
        component: the component chosen on either half of the prompts. `A or B` if the halves disagree; empty if there
            is no choice.
        pooled: whether the halves disagree. The numbers then pool both components, each measured on the half that
            didn't choose it, so that `yes` doesn't tell at which of them something is restored.
        removed: the mean −`direct`, in the readout's unit.
        lost: the mean −`total`, in the readout's unit.
        restored: 1 − lost/removed, the ratio of means.
        slope: the slope of total − direct on −direct over prompts.
        attention: the share of what is removed that attention restores.
        mlp: the share of what is removed that MLPs restore.
        norm: the share of what is removed that the norm restores. The three shares add up to `restored`.
        responders: the components with a response above 0, the largest first.
        restored_amount: the mean total − direct, in the readout's unit.
        placebo: the mean total − direct of the same ablations on placebo tokens, if these were read.
        placebos: the number of placebo tokens per prompt.
        amounts: the mean of what attention, MLPs and the norm make up for, in the readout's unit, in this order.
        answers: the answers to the three questions on all components of the kind.
    """

    kind: ComponentKind
    answer: Answer
    why: str
    clear: int
    above_threshold: int
    confidence: float
    component: str = ""
    pooled: bool = False
    removed: Interval = UNKNOWN
    lost: Interval = UNKNOWN
    restored: Interval = UNKNOWN
    slope: Interval = UNKNOWN
    attention: Interval = UNKNOWN
    mlp: Interval = UNKNOWN
    norm: Interval = UNKNOWN
    responders: tuple[Responder, ...] = ()
    restored_amount: Interval = UNKNOWN
    placebo: Interval = UNKNOWN
    placebos: int = 0
    amounts: tuple[Interval, Interval, Interval] = (UNKNOWN, UNKNOWN, UNKNOWN)
    answers: tuple[Answered, ...] = ()


def verdicts(results: xr.Dataset, effects: Effects, bootstrap: Bootstrap) -> tuple[Verdict, ...]:
    """Return a verdict on each kind of component that was ablated alone.

    Components with nothing downstream don't count.

    Args:
        results: the results of a run.
        effects: the effects of these results (`per_prompt`).
        bootstrap: the resampling that gives the intervals; its level holds for all verdicts together.
    """
    ablated = kinds(effects["ablated"].isel(ablated=compensable(effects).values))
    asked = {kind: candidates(effects, kind) for kind in ASKED if kind in ablated}
    # Bonferroni: all answers hold together at the given level.
    corrected = replace(bootstrap, confidence=1 - (1 - bootstrap.confidence) / max(len(asked), 1))
    return tuple(_verdict(results, effects, kind, samples, corrected) for kind, samples in asked.items())


def _verdict(
    results: xr.Dataset,
    effects: Effects,
    kind: ComponentKind,
    samples: xr.Dataset,
    bootstrap: Bootstrap,
) -> Verdict:
    held = held_out(samples, most_restored)
    bounds = simultaneous(lambda means: means, samples[["restored"]], bootstrap, "ablated")["restored"]
    clear = int((bounds.sel(bound="low") > 0).sum())
    counts: dict[str, Any] = {
        "clear": clear,
        "above_threshold": samples.sizes["ablated"],
        "confidence": bootstrap.confidence,
        "answers": three_answers(effects, kind, bootstrap),
    }
    if held is None:
        return Verdict(kind, *_without_choice(effects, kind, samples, bootstrap), **counts)
    others = _placebos(results)
    found = budget_shares(held.samples, bootstrap)
    restored = Interval.of(found["restored"])
    amounts = ["removed", "lost", "restored", *PARTS]
    means = interval(lambda each: each, held.samples[amounts], bootstrap)
    return Verdict(
        kind,
        *_answer(restored, clear),
        **counts,
        component=held.named,
        pooled=held.pooled,
        removed=Interval.of(means["removed"]),
        lost=Interval.of(means["lost"]),
        restored=restored,
        slope=Interval.of(found["restored_slope"]),
        attention=Interval.of(found["attention"]),
        mlp=Interval.of(found["mlp"]),
        norm=Interval.of(found["norm"]),
        responders=tuple(_responders(results, effects, held, bootstrap)),
        restored_amount=Interval.of(means["restored"]),
        placebo=_placebo(results, others, held, bootstrap),
        placebos=len(others),
        amounts=(Interval.of(means["attention"]), Interval.of(means["mlp"]), Interval.of(means["norm"])),
    )


def _without_choice(
    effects: Effects, kind: ComponentKind, samples: xr.Dataset, bootstrap: Bootstrap
) -> tuple[Answer, str]:
    if samples.sizes["ablated"] and samples.sizes["prompt"] < FEWEST:
        return "can't tell", "there are too few prompts to choose a component on one half and measure it on the other"
    if samples.sizes["ablated"]:
        return (
            "can't tell",
            "on one half of the prompts no component removes anything, so that none can be chosen on it",
        )
    if none_above_threshold(effects, kind, bootstrap):
        return "no", f"none removes more than {MIN_SHARE:.0%} of the readout"
    return "can't tell", f"on average none removes more than {MIN_SHARE:.0%} of the readout, but that isn't sure"


def _answer(restored: Interval, clear: int) -> tuple[Answer, str]:
    if not np.isfinite([restored.low, restored.high]).all():
        return "can't tell", "what is removed may be nothing, so that a share of it has no bounds"
    if restored.low > 0:
        return "yes", ""
    if clear:
        return "can't tell", "not at the component that either half would choose, but surely at others"
    if restored.high < NEGLIGIBLE:
        return "no", f"what is restored is surely less than {NEGLIGIBLE:.0%} of what is removed"
    return "can't tell", f"the interval holds both 0 and more than {NEGLIGIBLE:.0%}"


def _responders(results: xr.Dataset, effects: Effects, held: HeldOut, bootstrap: Bootstrap) -> list[Responder]:
    """Return the components with a mean response surely above 0, the largest first."""
    found: list[Responder] = []
    for responses in _responses(results, effects, held):
        samples = xr.Dataset({"response": responses, "removed": held.samples["removed"]})
        bounds = simultaneous(_share, samples, bootstrap, "component")["response"]
        each = (Responder(str(name), Interval.of(bounds.sel(component=name))) for name in bounds["component"].values)
        found += [responder for responder in each if responder.response.low > 0]
    return sorted(found, key=lambda each: -each.response.estimate)


def _share(means: xr.Dataset) -> xr.Dataset:
    return means[["response"]] / means["removed"].where(means["removed"] != 0)


def _responses(results: xr.Dataset, effects: Effects, held: HeldOut) -> Iterator[xr.DataArray]:
    """Yield the downstream responses [prompt, component] of sublayers, then of units and terms."""
    picks = list(dict.fromkeys(held.picks))
    downstream = effects["downstream"].sel(ablated=picks).any("ablated").values
    yield held.take(change(effects.isel(component=downstream)))
    read = select_readout(results, effects.readout).sel(ablated=picks)
    is_unit = np.isin(kinds(read["component"]), SUBLAYER_KINDS, invert=True)
    if (below := is_unit & read["downstream"].any("ablated").values).any():
        read = read.isel(component=below)
        ablated = read[WRITTEN[effects.sigma]]
        yield held.take((ablated - read["unembed"]).astype(np.float64).compute())


def _placebos(results: xr.Dataset) -> list[int]:
    """Return the indices of the placebo readouts."""
    labels = results["readout"].values if "readout" in results.dims else ()
    return [index for index, name in enumerate(map(str, labels)) if name.startswith("placebo.")]


def _placebo(results: xr.Dataset, others: list[int], held: HeldOut, bootstrap: Bootstrap) -> Interval:
    """Return the mean total − direct of the chosen ablations over placebo tokens."""
    if not others:
        return UNKNOWN
    picks = list(dict.fromkeys(held.picks))
    at = results.sel(ablated=picks).isel(readout=others)
    restored = (at["total"] - at["direct"]).mean(("readout", "patch"), dtype=np.float64).compute()
    return Interval.of(mean_interval(held.take(restored), bootstrap))
