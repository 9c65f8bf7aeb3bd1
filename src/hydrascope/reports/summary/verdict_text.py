"""Verdicts as text."""

from collections.abc import Iterator, Sequence

import numpy as np

from hydrascope.components.component import Component
from hydrascope.measures import MIN_SHARE, ComponentKind
from hydrascope.reports.summary.interval import format_interval, format_significant, number
from hydrascope.reports.summary.mediation_rows import Pair
from hydrascope.reports.summary.summarise import Summary
from hydrascope.reports.summary.verdict import Responder, Verdict

#: The number of responders and pairs that are named.
NAMED = 3

#: The note on a pooled verdict.
POOLED = "The halves of the prompts chose different components. Amounts and shares pool both, and are of neither alone"

#: The name of each kind of component in sentences.
ASKED_NAME: dict[ComponentKind, str] = {"attn": "attention", "mlp": "MLPs", "head": "heads", "neuron": "neurons"}


def sentences(summary: Summary) -> list[str]:
    """Return a paragraph for each verdict, and one for the pairs of interactions."""
    texts = [" ".join(_verdict_sentences(verdict, summary.run["unit"])) for verdict in summary.verdicts]
    return [*texts, " ".join(_pair_sentences(summary))] if summary.pairs else texts


def headlines(summary: Summary) -> list[str]:
    """Return the start of each paragraph of `sentences`: the question and the short answer."""
    texts = [headline(verdict) for verdict in summary.verdicts]
    return [*texts, _pairs_headline(summary)] if summary.pairs else texts


def clearest_verdict(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the most informative verdict on a result.

    `yes` comes before other answers, and a larger share before a smaller one. A share without bounds counts least.
    """

    def informative(each: Verdict) -> tuple[bool, float]:
        return each.answer == "yes", float(np.nan_to_num(each.restored.if_bounded.estimate, nan=-np.inf))

    return max(verdicts, key=informative)


def one_line(verdict: Verdict, unit: str = "logits") -> str:
    """Return a verdict in one sentence."""
    if not verdict.component:
        return f"{headline(verdict)}: {verdict.why}."
    if not np.isfinite(verdict.restored.low):
        return f"{verdict.answer}: {verdict.why}."
    most = f", most by {_named(verdict.responders[:1])}" if verdict.answer == "yes" and verdict.responders else ""
    return (
        f"{verdict.answer}. Of {number(verdict.removed.estimate, 2)} {unit} that ablating {verdict.component} removes, "
        f"a share of {format_interval(verdict.restored, 2)} is restored{most}.{f' {POOLED}.' if verdict.pooled else ''}"
    )


def headline(verdict: Verdict) -> str:
    """Return question and answer, as `Is what ablating attention removes restored? Yes`."""
    answer = verdict.answer[0].upper() + verdict.answer[1:]
    return f"Is what ablating {ASKED_NAME[verdict.kind]} removes restored? {answer}"


def _verdict_sentences(verdict: Verdict, unit: str) -> Iterator[str]:
    yield f"{headline(verdict)}{f': {verdict.why}' if verdict.why else ''}."
    if not verdict.component:
        return
    if verdict.pooled:
        which = ": they show that something is restored, not at which of them" if verdict.answer == "yes" else ""
        yield f"{POOLED}{which}."
    done = (
        f"Ablating {verdict.component} removes {format_interval(verdict.removed, 2)} {unit} and loses "
        f"{format_interval(verdict.lost, 2)}"
    )
    if not np.isfinite(verdict.restored.low):  # a ratio to an amount that may be 0 has no meaning, nor have its shares
        yield f"{done} in the end: {format_interval(verdict.restored_amount, 2)} {unit} are restored."
        return
    yield (
        f"{done} in the end: of what it removes {format_interval(verdict.restored, 2)} is restored (ratio of means; "
        f"slope over prompts {format_interval(verdict.slope, 2)})."
    )
    if verdict.answer == "no":
        return
    yield (
        f"Attention restores {format_interval(verdict.attention, 2)}, MLPs {format_interval(verdict.mlp, 2)}, the norm "
        f"{format_interval(verdict.norm, 2)}{_most(verdict)}."
    )
    if np.isfinite(verdict.placebo.estimate):
        yield (
            f"In {unit} {format_interval(verdict.restored_amount, 2)} are restored, of other tokens (placebo, "
            f"{verdict.placebos:,} a prompt) {format_interval(verdict.placebo, 2)}."
        )
    yield (
        f"By bounds that hold for all of them at once, something is surely restored at {verdict.clear or 'none'} of "
        f"the {verdict.above_threshold} that remove more than {MIN_SHARE:.0%} of the readout."
    )


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


def _most(verdict: Verdict) -> str:
    """Name the largest responders: sublayers, then heads and neurons."""
    layers = [each for each in verdict.responders if not Component.parse(each.name).is_unit]
    units = [each for each in verdict.responders if each not in layers]
    return "".join(f"; most by {_named(each)}" for each in (layers, units) if each)


def _named(responders: Sequence[Responder]) -> str:
    named = ", ".join(f"{each.name} {format_interval(each.response, 2)}" for each in responders[:NAMED])
    more = len(responders) - NAMED
    return f"{named}{f', and {more} more' if more > 0 else ''}"
