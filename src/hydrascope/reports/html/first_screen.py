"""The first screen of a report: one finding, its ledger, its picture, three answers."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

import numpy as np

from hydrascope.measures import Answered, answer_of
from hydrascope.reports.flow import LAYOUTS, RepairFlow, as_svg, lay_out
from hydrascope.reports.flow.words import about, digits, sources, title
from hydrascope.reports.html.ledger_bars import ledger_bars
from hydrascope.reports.summary.findings import PLURAL
from hydrascope.reports.summary.interval import Interval, format_interval, format_share, percent
from hydrascope.reports.summary.summarise import Summary
from hydrascope.reports.summary.verdict import Verdict
from hydrascope.reports.summary.verdict_text import (
    ABLATED,
    ONE_NAME,
    QUESTION,
    counts_in_words,
    kick_sentences,
    readout_noun,
)

#: The definitions of the terms of the screen, shown on hover, focus or tap.
TERMS = {
    "removed": "The direct effect that the ablation takes away: nothing else has reacted yet.",
    "comes back": "Removed less lost: the share of what is removed that the rest of the network makes up for.",
    "final norm": "The network's last step divides by the size of the residual stream; a smaller stream is scaled up.",
    "lost": "The total effect of the ablation, once everything has reacted.",
    "frozen": "Held at its clean activation, so that it cannot react.",
    "necessary": "With this component frozen, a part of what came back is lost again.",
    "sufficient": "With everything else frozen, this component alone brings a part back.",
}

_ANSWERS = ("yes", "no", "can't tell")

#: The answer to each question, as one sentence on the chosen component.
_ASKS = {
    "on average": "Share of the mean",
    "prompt by prompt": "Slope of what comes back on what is removed",
    "compensation": "Slope of CE on DE, the paper's claim",
}


@dataclass(frozen=True)
class OtherAblation:
    """The same component under another ablation.

    Attributes:
        ablation: the name of the ablation.
        prompts: the number of prompts.
        removed: the amount removed, in the unit of the readout.
        lost: the amount lost.
        share: the share that comes back; without bounds where what is removed may be 0.
    """

    ablation: str
    prompts: int
    removed: Interval
    lost: Interval
    share: Interval


def first_screen(summary: Summary, flow: RepairFlow, other: OtherAblation | None = None) -> str:
    """Return the first screen as HTML; every text from the result is escaped.

        >>> flow = hs.reports.flow.repair_flow(results)
        >>> html = first_screen(hs.reports.summarise(results), flow)

    Args:
        summary: the summary of the sweep.
        flow: the numbers of the ablation that it shows.
        other: the same component under another ablation.
    """
    verdict = next(each for each in summary.verdicts if flow.ablated in each.component.split(" or "))
    doubts = "".join(_doubts(flow, summary, verdict, other))
    parts = [
        '<section id="first" aria-labelledby="first-title"><div class="first-words">',
        f'<h2 id="first-title">{escape(" ".join(title(flow)))}.</h2>',
        f'<p class="deck">{"".join(_deck(flow))}</p>',
        f"<h3>What became of what is {_term('removed')}, and what is {_term('lost')}</h3>",
        ledger_bars(flow),
        f"<h3>What {_term('comes back')}? Three questions, kept apart</h3>",
        f'<ul class="questions">{"".join(_questions(flow, verdict))}</ul>',
        "</div>",
        f'<div class="first-picture">{"".join(_pictures(flow))}</div>',
        f"<details><summary>How sure is this?</summary><ul>{doubts}</ul></details>",
        f"<nav aria-label='More'>{''.join(_doors(flow))}</nav></section>",
    ]
    return "".join(parts)


def _pictures(flow: RepairFlow) -> Iterator[str]:
    """Yield the picture for a wide page and for a phone, and its source; one picture is shown."""
    for name, layout in (("wide", LAYOUTS["page"]), ("narrow", LAYOUTS["phone"])):
        yield f'<div class="{name}">{as_svg(lay_out(flow, layout).bare, "auto", about(flow))}</div>'
    yield f'<p class="keys">{escape(" · ".join(sources(flow)))}</p>'


def _deck(flow: RepairFlow) -> Iterator[str]:
    """Yield sentences on who makes up for it."""
    amount, unit = digits(flow), escape(flow.source.unit)
    shares = {"later attention": flow.attention, "later MLPs": flow.mlp, f"the {_term('final norm')}": flow.norm}
    name, most = max(shares.items(), key=lambda each: each[1].estimate)
    if flow.share.low > 0 and most.low > 0:
        part = "Most of it" if most.estimate > 0.5 * flow.restored.estimate else "The largest part"
        yield f"{part} through {name}: {format_interval(most, amount)} {unit}. "
    if not flow.mediated:
        yield f"No run {_term('frozen', 'froze')} a component: the picture shows responses, not yet repairs."
        return
    necessary = sorted((each for each in flow.mediators if each.necessary), key=lambda m: -m.restored_by.estimate)
    for each in necessary[:2]:
        way = ", by way of the norm" if each.norm.estimate > 0.5 * each.restored_by.estimate else ""
        yield (
            f"<strong>{escape(each.label)} is {_term('necessary')}</strong>: with it {_term('frozen')}, "
            f"{format_interval(each.restored_by, amount)} {unit} are lost again{way}. "
        )
    sufficient = [each.label for each in flow.mediators if each.sufficient]
    if not necessary:
        yield f"No component is surely {_term('necessary')}. "
    if sufficient:
        named = escape(", ".join(sufficient[:3])) + (f" and {len(sufficient) - 3} more" if len(sufficient) > 3 else "")
        yield f"{_term('sufficient', 'Sufficient')} alone: {named}."


def _questions(flow: RepairFlow, verdict: Verdict) -> Iterator[str]:
    """Yield the three answers, each with the number at the chosen component."""
    # Not those of the verdict, which may be pooled over two components.
    numbers = {"on average": flow.share, "prompt by prompt": flow.slope, "compensation": flow.compensation}
    order: dict[str, Answered] = {each.question: each for each in verdict.answers}
    for question in sorted(order, key=lambda name: _ANSWERS.index(_answer(numbers[name]))):
        answered, value = order[question], numbers[question]
        shown = format_share(value) if question == "on average" else format_interval(value, 2)
        one = answered.asked == 1
        many = f"{answered.asked:,} {ONE_NAME[verdict.kind] if one else PLURAL[verdict.kind]}"
        counts = f"{answered.answer}, {counts_in_words(answered)}"
        yield (
            f'<li><div><strong>{QUESTION[answered.question]}? <span class="answer">{_answer(value)}</span></strong><br>'
            f"{_ASKS[question]}: {shown} at {escape(flow.ablated)}. {many} surely "
            f"write{'s' if one else ''} for {escape(readout_noun(flow.source.readout))}: {escape(counts)}.</div>"
            f"{_dot(value)}</li>"
        )


def _answer(value: Interval) -> str:
    return answer_of(value.low, value.high)


def _dot(value: Interval) -> str:
    """Return a number on an axis from 0, none, to 1, all."""
    if not np.isfinite(value.estimate):
        return ""

    def x(number: float) -> float:
        return round(18 + 64 * min(max(number, -0.12), 1.12), 1)

    line = (
        "" if np.isnan(value.low) else f'<line class="bound" x1="{x(value.low)}" x2="{x(value.high)}" y1="8" y2="8"/>'
    )
    return (
        '<svg class="dot-axis" viewBox="0 0 100 30" aria-hidden="true"><line class="axis" x1="18" x2="82" y1="8" '
        'y2="8"/><line class="axis" x1="18" x2="18" y1="2" y2="14"/><line class="axis" x1="82" x2="82" y1="2" '
        f'y2="14"/>{line}<circle cx="{x(value.estimate)}" cy="8" r="4"/><text x="18" y="27" text-anchor="middle">0 none'
        '</text><text x="82" y="27" text-anchor="middle">1 all</text></svg>'
    )


def _doubts(flow: RepairFlow, summary: Summary, verdict: Verdict, other: OtherAblation | None) -> Iterator[str]:
    """Yield what would change one's mind."""
    if verdict.pooled:
        yield (
            f"<li><strong>Choice.</strong> The halves of the prompts chose different components "
            f"({escape(verdict.component)}). What is shown is of {escape(flow.ablated)} on all prompts, which include "
            "those that chose it.</li>"
        )
    elif np.isfinite(flow.held_out.estimate):
        yield (
            f"<li><strong>Choice.</strong> {escape(flow.ablated)} was chosen on one half of the prompts and measured "
            f"on the other: {format_share(flow.held_out)}. On all prompts it is {format_share(flow.share)}.</li>"
        )
    if flow.half:
        yield (
            f"<li><strong>Tails.</strong> Half of what is removed is on {flow.half:,} of {flow.source.count:,} "
            "prompts: the fewer, the less the mean says about the others.</li>"
        )
    yield f"<li><strong>Ablation.</strong> {escape(_about_ablation(flow, other))}</li>"
    for sentence in kick_sentences(verdict, summary):
        yield f"<li><strong>Distance.</strong> {escape(sentence)}</li>"
    if np.isfinite(verdict.placebo.estimate):
        pooled = f"{escape(verdict.component)}, pooled: " if verdict.pooled else ""
        back = f"{format_interval(verdict.restored_amount, 2)} {escape(flow.source.unit)}"
        yield (
            f"<li><strong>Placebo.</strong> {pooled}{back} come back; of {verdict.placebos} other tokens a prompt "
            f"{format_interval(verdict.placebo, 2)}.</li>"
        )
    if not flow.mediated:
        yield "<li><strong>Who.</strong> No component was frozen: hydrascope mediate shows who is necessary.</li>"
    yield f"<li>Intervals: {percent(flow.confidence)}, by resampling the prompts.</li>"


def _about_ablation(flow: RepairFlow, other: OtherAblation | None) -> str:
    unit = flow.source.unit
    if other is None:
        return f"This is the {flow.source.ablation} ablation. Another one removes other amounts: measure it, too."
    how = ABLATED.get(other.ablation, f"ablated by {other.ablation}")
    share = f", so that {format_share(other.share)} comes back" if np.isfinite(other.share.low) else ""
    return (
        f"{flow.ablated} {how}, on {other.prompts:,} prompts: {format_interval(other.removed, 2)} {unit} are removed "
        f"and {format_interval(other.lost, 2)} lost{share}."
    )


def _doors(flow: RepairFlow) -> Iterator[str]:
    doors = (
        ("matrix", "Who responds to whom", "Every component ablated, one by one, and what the others then write."),
        (
            "scatter",
            "Prompt by prompt",
            f"What is removed and what comes back on each of {flow.source.count:,} prompts.",
        ),
        ("prompts", "The prompts", "The words behind each point; a prompt has a matrix and a trace of its own."),
    )
    for target, name, text in doors:
        # The page's address holds what is chosen, so that a link can't name a place on it.
        yield f'<button type="button" data-door="{target}"><strong>{name}</strong><span>{text}</span></button>'


def _term(name: str, shown: str = "") -> str:
    """Return a term with its definition, which opens on hover, focus or tap."""
    return (
        f'<span class="term" role="button" tabindex="0">{escape(shown or name)}<span class="definition" '
        f'role="tooltip">{escape(TERMS[name])}</span></span>'
    )
