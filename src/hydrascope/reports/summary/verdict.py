"""Is anything restored, how much, how sure, and by whom: the answer that a run gives, before all its numbers."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import xarray as xr

from hydrascope.measures import (
    FEWEST,
    MIN_SHARE,
    WRITTEN,
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
)
from hydrascope.reports.summary.interval import UNKNOWN, Interval

Answer = Literal["yes", "no", "can't tell"]

#: A share restored that is surely below this is none.
NEGLIGIBLE = 0.05
#: What is asked about, apart from each other.
ASKED: tuple[ComponentKind, ...] = ("attn", "mlp", "head", "neuron")


@dataclass(frozen=True)
class Responder:
    """A layer, head or neuron that answers to an ablation.

    Attributes:
        name: its label.
        response: the mean change of what it adds to the readout, as a share of what the ablation removes; with bounds
            that hold for all responders at once.
    """

    name: str
    response: Interval


@dataclass(frozen=True)
class Verdict:
    """Whether what ablating one kind of part removes is restored, at the part where most of it is.

    Everything but the counts is measured on prompts that had no say in choosing the part.

    Attributes:
        kind: of the ablated parts.
        answer: `yes` where the interval of `restored` is above 0; `no` where it is below `NEGLIGIBLE` and no part is
            `clear`, or where surely nothing removes enough to be restored; else `can't tell`.
        why: of `no` and `can't tell`, in words.
        part: which one, chosen on either half of the prompts; two where the halves disagree; empty where none is.
        pooled: whether it is two. All but the counts is then over both, each measured on the half that didn't choose
            it, and of neither alone: `yes` says that something is restored, not at which of them.
        removed, lost: mean −`direct` and −`total`, in the readout's unit.
        restored: 1 − lost/removed, the ratio of means.
        slope: of total − direct on −direct over prompts.
        attention, mlp, norm: the shares of what is removed that each restores; they add up to `restored`.
        responders: those whose response is above 0, the largest first.
        restored_amount: mean total − direct, in the readout's unit.
        placebo: the same of the same ablations at other tokens, where they were read, the mean of them.
        placebos: how many tokens that is of, a prompt.
        clear: how many parts have a mean total − direct above 0, with bounds that hold for all at once.
        above_threshold: of how many, those that remove more than `MIN_SHARE` of the readout.
        confidence: of all its intervals: what is left for each of the kinds that are asked about.
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


def verdicts(results: xr.Dataset, effects: Effects, bootstrap: Bootstrap) -> tuple[Verdict, ...]:
    """One for each kind of part that was ablated one by one, and has anything downstream.

    Args:
        results: of a run.
        effects: the same, read by `per_prompt`.
    """
    answered = kinds(effects["ablated"].isel(ablated=compensable(effects).values))
    asked = {kind: candidates(effects, kind) for kind in ASKED if kind in answered}
    # Bonferroni: so that all answers together are as sure as one is said to be.
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
    }
    if held is None:
        return Verdict(kind, *_without_choice(effects, kind, samples, bootstrap), **counts)
    others = _placebos(results)
    found = budget_shares(held.samples, bootstrap)
    restored = Interval.of(found["restored"])
    means = interval(lambda each: each, held.samples[["removed", "lost", "restored"]], bootstrap)
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
    )


def _without_choice(
    effects: Effects, kind: ComponentKind, samples: xr.Dataset, bootstrap: Bootstrap
) -> tuple[Answer, str]:
    if samples.sizes["ablated"] and samples.sizes["prompt"] < FEWEST:
        return "can't tell", "there are too few prompts to choose a part on one half and measure it on the other"
    if samples.sizes["ablated"]:
        return "can't tell", "on one half of the prompts no part removes anything, so that none can be chosen on it"
    if none_above_threshold(effects, kind, bootstrap):
        return "no", f"none removes more than {MIN_SHARE:.0%} of the readout, so that there is nothing to restore"
    return "can't tell", f"on average none removes more than {MIN_SHARE:.0%} of the readout, but that isn't sure"


def _answer(restored: Interval, clear: int) -> tuple[Answer, str]:
    if not np.isfinite([restored.low, restored.high]).all():
        return "can't tell", "what is removed may be nothing, so that a share of it has no bounds"
    if restored.low > 0:
        return "yes", ""
    if clear:
        return "can't tell", "not at the part that either half would choose, but surely at others"
    if restored.high < NEGLIGIBLE:
        return "no", f"what is restored is surely less than {NEGLIGIBLE:.0%} of what is removed"
    return "can't tell", f"the interval holds both 0 and more than {NEGLIGIBLE:.0%}"


def _responders(results: xr.Dataset, effects: Effects, held: HeldOut, bootstrap: Bootstrap) -> list[Responder]:
    """Whose mean response is surely above 0, the largest first: layers, and the heads and neurons that were read."""
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
    """`[prompt, component]` the response of everything downstream of the chosen part: of layers, then of units."""
    picks = list(dict.fromkeys(held.picks))
    downstream = effects["downstream"].sel(ablated=picks).any("ablated").values
    yield held.take(change(effects.isel(component=downstream)))
    read = select_readout(results, effects.readout).sel(ablated=picks)
    is_unit = np.isin(kinds(read["component"]), ("head", "neuron"))
    if (below := is_unit & read["downstream"].any("ablated").values).any():
        read = read.isel(component=below)
        ablated = read[WRITTEN[effects.sigma]]
        yield held.take((ablated - read["unembed"]).astype(np.float64).compute())


def _placebos(results: xr.Dataset) -> list[int]:
    """The places of the readouts that are placebos."""
    read = results["readout"].values if "readout" in results.dims else ()
    return [place for place, name in enumerate(map(str, read)) if name.startswith("placebo.")]


def _placebo(results: xr.Dataset, others: list[int], held: HeldOut, bootstrap: Bootstrap) -> Interval:
    """What the same ablations restore at other tokens, averaged over these."""
    if not others:
        return UNKNOWN
    picks = list(dict.fromkeys(held.picks))
    at = results.sel(ablated=picks).isel(readout=others)
    restored = (at["total"] - at["direct"]).mean(("readout", "patch"), dtype=np.float64).compute()
    return Interval.of(mean_interval(held.take(restored), bootstrap))
