"""Verdicts as text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from hydrascope.components.component import Component
from hydrascope.measures import MIN_SHARE, Answered, ComponentKind, Question
from hydrascope.reports.summary.distance_rows import DistanceRow
from hydrascope.reports.summary.findings import PLURAL
from hydrascope.reports.summary.interval import (
    UNKNOWN,
    Interval,
    format_interval,
    format_share,
    format_significant,
    number,
    percent,
)
from hydrascope.reports.summary.mediation_rows import Pair
from hydrascope.reports.summary.split_rows import split_sentences
from hydrascope.reports.summary.summarise import Summary
from hydrascope.reports.summary.verdict import Responder, Verdict
from hydrascope.utils.text import counted

#: The number of responders and pairs that are named.
NAMED = 3

#: The note on a pooled verdict.
POOLED = "The halves of the prompts chose different components. Amounts and shares pool both, and are of neither alone"

#: The note on the shares of several verdicts, of which some are pooled.
POOLED_SHARES = "where the halves chose two components, over both, pooled, and of neither alone"

#: The end of `With attn.3 …`, by ablation.
ABLATED = {
    "zero": "set to zero",
    "mean": "replaced by its mean",
    "resample": "resampled from other prompts",
    "noise": "computed from noisy embeddings",
    "counterfactual": "replaced by its value on the twin prompt",
    "optimal": "replaced by a constant fitted on other prompts",
}

#: The three questions in a few words.
QUESTION: dict[Question, str] = {
    "compensation": "Compensation",
    "prompt by prompt": "Prompt by prompt",
    "on average": "On average",
}

#: The least share of what is removed that a necessary or sufficient mediator restores.
NOTABLE = 0.05

#: The name of one component of each kind.
ONE_NAME: dict[ComponentKind, str] = {
    "attn": "attention sublayer",
    "mlp": "MLP",
    "head": "head",
    "neuron": "neuron",
    "feature": "feature",
}

#: The name of each kind of component in sentences.
ASKED_NAME: dict[ComponentKind, str] = {
    "attn": "Attention",
    "mlp": "MLPs",
    "head": "Heads",
    "neuron": "Neurons",
    "feature": "Features",
}


def sentences(summary: Summary) -> list[str]:
    """Return a paragraph for each ablation of a mediation, each verdict, and the pairs."""
    texts = [" ".join(_verdict_sentences(verdict, summary.run)) for verdict in summary.verdicts]
    if summary.reactions:
        texts = [*mediation_sentences(summary), *texts]
    texts += told_splits(summary)
    return [*texts, " ".join(_pair_sentences(summary))] if summary.pairs else texts


def headlines(summary: Summary) -> list[str]:
    """Return the start of each paragraph of `sentences`."""
    texts = [headline(verdict, summary.run) for verdict in summary.verdicts]
    if summary.reactions:
        texts = [*(each.partition(":")[0] for each in mediation_sentences(summary)), *texts]
    texts += (each.partition(":")[0] for each in told_splits(summary))
    return [*texts, _pairs_headline(summary)] if summary.pairs else texts


def kick_sentences(verdict: Verdict, summary: Summary) -> list[str]:
    """Return how hard the ablation kicks the network, and whether restoration depends on it.

    There is one sentence for each component of the verdict; none without distances.
    """
    named = set(verdict.component.split(" or "))
    return [_kick_sentence(row, summary.bootstrap.confidence) for row in summary.kicks if row.ablated in named]


def _kick_sentence(row: DistanceRow, confidence: float) -> str:
    known = np.isfinite([row.rise.low, row.rise.high]).all()
    rises = "rises" if row.rise.low > 0 else "falls" if row.rise.high < 0 else "doesn’t surely change"
    change = f"the restored slope {rises} with it ({format_interval(row.rise, 2)} from the low to the high third)"
    return (
        f"Kick of {row.ablated}: {number(row.kick, 2)} (0 untouched, 1 as far apart as two prompts); "
        f"{change if known else 'whether the restored slope changes with it isn’t known'}. Restored slope "
        f"{format_interval(row.restored_slope, 2)}; after random directions of the same size "
        f"{format_interval(row.control_slope, 2)} (intervals of this line: {percent(confidence)} each)."
    )


def clearest_verdict(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the most informative verdict on a result.

    `yes` comes before other answers, and a share that is surely larger before a smaller one. A share without bounds
    counts least.
    """
    return max(verdicts, key=_clearness)


def clearest_first(summary: Summary) -> Summary:
    """Return the summary with its most informative verdict first."""
    return replace(summary, verdicts=tuple(sorted(summary.verdicts, key=_clearness, reverse=True)))


def _clearness(verdict: Verdict) -> tuple[bool, float]:
    return verdict.answer == "yes", float(np.nan_to_num(verdict.restored.low, nan=-np.inf))


def headline(verdict: Verdict, run: Mapping[str, str]) -> str:
    """Return the finding at the chosen component in one clause, without a full stop.

    Args:
        verdict: the verdict on a kind of component.
        run: the settings of the run (`Summary.run`).
    """
    if not verdict.component:
        return f"{ASKED_NAME[verdict.kind]}: " + ("nothing to restore" if verdict.answer == "no" else "can't tell")
    subject = f"With {verdict.component} {ABLATED.get(run.get('ablation', ''), 'ablated')}"
    of = f"what {'it adds to' if run.get('ablation') == 'zero' else 'that takes from'} {_readout_noun(run)}"
    share = format_share(verdict.restored)
    if not np.isfinite(verdict.restored.low):
        return f"{subject}, nothing is surely removed"
    if verdict.restored.low > 0:
        return f"{subject}, {share} of {of} comes back"
    if verdict.restored.high < 0:
        return f"{subject}, nothing of {of} comes back, and more is lost: {share}"
    return f"{subject}, it isn't sure that anything of {of} comes back: {share}"


def one_line(verdict: Verdict, run: Mapping[str, str]) -> str:
    """Return the finding of a verdict in one sentence."""
    return f"{title(verdict, run)}{f' {POOLED}.' if verdict.pooled else ''}"


def title(verdict: Verdict, run: Mapping[str, str]) -> str:
    """Return the headline, and the reason where it is no finding."""
    reason = f" ({verdict.why})" if verdict.why else ""
    return f"{headline(verdict, run)}{reason}."


def counts_in_words(answered: Answered) -> str:
    """Return the counts behind an answer, and the number of prompts that would tell."""
    counts = f"surely above 0 in {answered.above:,} of {answered.asked:,}"
    if answered.answer != "yes":
        counts += f", possibly in {answered.possible:,}"
    if answered.overshoot:
        counts += f"; {answered.overshoot:,} surely overshoot{'s' if answered.overshoot == 1 else ''}"
    if answered.answer == "can't tell":
        counts += f"; {_prompts_needed(answered)}"
    return counts


def _prompts_needed(answered: Answered) -> str:
    if answered.prompts_needed:
        return f"about {answered.prompts_needed:,} prompts would tell"
    return "no number up to a million would tell"


def _readout_noun(run: Mapping[str, str]) -> str:
    return readout_noun(run.get("readout", "").partition(",")[0])


def readout_noun(readout: str) -> str:
    """Return a readout's name in sentences."""
    return {"logit": "the answer", "difference": "the logit difference"}.get(readout, readout)


def _verdict_sentences(verdict: Verdict, run: Mapping[str, str]) -> Iterator[str]:
    unit = run["unit"]
    yield title(verdict, run)
    if verdict.component:
        yield from _component_sentences(verdict, unit)
    if any(each.asked for each in verdict.answers):
        yield f"{asked(verdict, run)}:"
        yield " ".join(
            f"{QUESTION[each.question]}? {each.answer[0].upper()}{each.answer[1:]}: {counts_in_words(each)}."
            for each in verdict.answers
        )


def asked(verdict: Verdict, run: Mapping[str, str]) -> str:
    """Name the components that the three questions are asked of."""
    count = max(each.asked for each in verdict.answers)
    name = ONE_NAME[verdict.kind] if count == 1 else PLURAL[verdict.kind]
    return f"{count:,} {name} surely write{'s' if count == 1 else ''} for {_readout_noun(run)}"


def _component_sentences(verdict: Verdict, unit: str) -> Iterator[str]:
    """Yield sentences on the component that one half of the prompts chose, on the other half."""
    if verdict.pooled:
        which = ": they show that something is restored, not at which of them" if verdict.answer == "yes" else ""
        yield f"{POOLED}{which}."
    removed, lost = format_interval(verdict.removed, 2), format_interval(verdict.lost, 2)
    if not np.isfinite(verdict.restored.low):  # a ratio to an amount that may be 0 has no meaning, nor have its shares
        yield (
            f"It removes {removed} {unit} and loses {lost} in the end: {format_interval(verdict.restored_amount, 2)} "
            f"{unit} come back."
        )
        return
    attention, mlps, norm = (format_interval(each, 2) for each in verdict.amounts)
    yield (
        f"Of {removed} {unit} removed, later attention makes up {attention}, later MLPs {mlps}, the final norm {norm}, "
        f"and {lost} are lost."
    )
    if verdict.responders:
        yield f"Largest responses, as shares of what is removed: {largest(verdict)}."
    if np.isfinite(verdict.placebo.estimate):
        yield placebo_sentence(verdict, unit)


def placebo_sentence(verdict: Verdict, unit: str) -> str:
    """Return the amount that comes back, beside that of placebo tokens."""
    return (
        f"{format_interval(verdict.restored_amount, 2)} {unit} come back, of other tokens (placebo, "
        f"{verdict.placebos:,} a prompt) {format_interval(verdict.placebo, 2)}."
    )


def mediation_sentences(summary: Summary) -> list[str]:
    """Return for each ablation which mediators are necessary and which are sufficient.

    A mediator is either only if the lower bound is above 0, and the mean at least `NOTABLE` of what is removed. Where
    nothing is surely removed, there is nothing to restore.
    """
    removed = {each.ablated: each.removed for each in summary.components}
    texts = []
    for ablated in dict.fromkeys(row.ablated for row in summary.reactions):
        amount = removed.get(ablated, UNKNOWN)
        if np.isnan(amount.estimate) or amount.low <= 0:
            texts.append(f"Who restores what {ablated} removes: {_nothing_removed(amount, summary.run['unit'])}.")
            continue
        least = NOTABLE * amount.estimate
        rows = [row for row in summary.reactions if row.ablated == ablated]
        necessary = [(row.mediator, row.restored_by) for row in rows if _is_notable(row.restored_by, least)]
        sufficient = [(row.mediator, row.restored_alone) for row in rows if _is_notable(row.restored_alone, least)]
        texts.append(
            f"Who restores what {ablated} removes: necessary {_mediators(necessary)}; sufficient "
            f"{_mediators(sufficient)}. In {summary.run['unit']}, of {counted(len(rows), 'mediator', 'mediators')}."
        )
    return texts


def _nothing_removed(amount: Interval, unit: str) -> str:
    told = "" if np.isnan(amount.estimate) else f" ({format_interval(amount, 2)} {unit})"
    return f"nothing is surely removed directly{told}, so that there is nothing to restore"


def told_splits(summary: Summary) -> list[str]:
    """Return a sentence on each verdict's component, if the result is of a split."""
    components = [name for verdict in summary.verdicts for name in verdict.component.split(" or ")]
    return list(split_sentences(summary.splits, components))


def _is_notable(value: Interval, least: float) -> bool:
    return value.low > 0 and value.estimate >= least


def _mediators(found: Sequence[tuple[str, Interval]]) -> str:
    if not found:
        return "is none surely"
    ranked = sorted(found, key=lambda each: -each[1].estimate)
    named = ", ".join(f"{name} {format_significant(value)}" for name, value in ranked[:NAMED])
    more = len(ranked) - NAMED
    return f"{'is' if len(ranked) == 1 else 'are'} {named}{f' and {more:,} more' if more > 0 else ''}"


def _covering(summary: Summary) -> list[Pair]:
    """Return the pairs that surely cover for each other, the most redundant first."""
    return [pair for pair in _relevant_pairs(summary) if pair.interaction.high < 0]


def _relevant_pairs(summary: Summary) -> list[Pair]:
    """Return the pairs with an interaction above a share of the largest single loss."""
    most = max(abs(each.lost.estimate) for each in summary.components)
    return [pair for pair in summary.pairs if abs(pair.interaction.estimate) > MIN_SHARE * most]


def _pairs_headline(summary: Summary) -> str:
    covering = len(_covering(summary))
    return f"Who covers for whom? Surely each for the other in {covering:,} of {len(summary.pairs):,} pairs"


def _pair_sentences(summary: Summary) -> Iterator[str]:
    yield f"{_pairs_headline(summary)}."
    needing = [pair for pair in reversed(_relevant_pairs(summary)) if pair.interaction.low > 0]
    for pairs, more in ((_covering(summary), "more"), (needing, "less")):
        if pairs:
            many = f"Ablated together {len(pairs):,} surely cost{'s' if len(pairs) == 1 else ''} {more} than one by one"
            yield f"{many}, in {summary.run['unit']}: {_in_words(pairs)}."
    yield f"Interactions of less than {MIN_SHARE:.0%} of the most that a component loses don’t count."


def _in_words(pairs: Sequence[Pair]) -> str:
    named = ", ".join(
        f"{each.first} and {each.second} {format_significant(each.interaction)}" for each in pairs[:NAMED]
    )
    more = len(pairs) - NAMED
    return f"{named}{f', and {more:,} more' if more > 0 else ''}"


def largest(verdict: Verdict) -> str:
    """Name the largest responders: sublayers, then heads and neurons."""
    layers = [each for each in verdict.responders if not Component.parse(each.name).is_unit]
    units = [each for each in verdict.responders if each not in layers]
    return "; ".join(_named(each) for each in (layers, units) if each)


def _named(responders: Sequence[Responder]) -> str:
    named = ", ".join(f"{each.name} {format_interval(each.response, 2)}" for each in responders[:NAMED])
    more = len(responders) - NAMED
    return f"{named}{f', and {more} more' if more > 0 else ''}"
