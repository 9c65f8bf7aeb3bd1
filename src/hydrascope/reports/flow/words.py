"""The words of the repair flow: its title, its labels, its sum."""

from collections.abc import Callable

import numpy as np

from hydrascope.reports.flow.naming import short_hash
from hydrascope.reports.flow.repair import Head, Mediator, RepairFlow, Sublayer
from hydrascope.reports.flow.source import as_named, positions_in_words, weights_in_words
from hydrascope.reports.summary.interval import (
    Interval,
    digits_for,
    format_interval,
    format_share,
    number,
    percent,
)
from hydrascope.reports.summary.verdict_text import ABLATED, readout_noun

#: The amount by which written and removed differ where both are told, as a share of what is removed.
_WRITTEN_DIFFERS = 0.15
#: The most decimals of a sum, beyond those of the picture.
_MORE_DECIMALS = 2
_NAMED = 3


def digits(flow: RepairFlow) -> int:
    """Return the decimals of all amounts of a picture."""
    return digits_for([flow.removed.estimate])


def named(flow: RepairFlow) -> str:
    """Return the ablated components in words: `attn.3 and mlp.5`."""
    return " and ".join(flow.components)


def subject(flow: RepairFlow) -> str:
    """Return the ablation as the start of a sentence: `With attn.28 set to zero`."""
    frozen = [each.label for each in flow.sublayers if each.frozen]
    held = f" and {', '.join(frozen)} frozen" if frozen else ""
    return f"With {named(flow)} {ABLATED.get(flow.source.ablation, 'ablated')}{held}"


def title(flow: RepairFlow) -> tuple[str, str]:
    """Return the finding in two halves of a sentence, for one line or two."""
    amount, unit = digits(flow), flow.source.unit
    removed, lost = (number(each.estimate, amount) for each in (flow.removed, flow.lost))
    share = flow.held_out if np.isfinite(flow.held_out.estimate) else flow.share
    zero = flow.source.ablation == "zero"
    whole = f"{'what it adds to' if zero else 'what that takes from'} {readout_noun(flow.source.readout)}"
    if zero and len(flow.components) > 1:
        whole = whole.replace("it adds", "they add")
    if not flow.certain:
        return f"{subject(flow)}, {removed} {unit} go missing", f"on this prompt, {lost} in the end"
    if not np.isfinite(share.low):
        return f"{subject(flow)}, {removed} {unit} go missing,", f"{lost} in the end"
    if share.high < 0:
        return f"{subject(flow)}, nothing comes back:", f"{removed} {unit} are removed, {lost} are lost"
    if share.low <= 0:
        return f"{subject(flow)}, it isn’t sure that anything", f"of {whole} comes back: {format_share(share)}"
    return f"{subject(flow)}, {format_share(share)}", f"of {whole} comes back"


def why_not(flow: RepairFlow) -> str:
    """Return why the flow can't be drawn, in one sentence; empty if it can."""
    amount, unit = digits(flow), flow.source.unit
    removed, lost = (format_interval(each, amount) for each in (flow.removed, flow.lost))
    of = readout_noun(flow.source.readout)
    if not np.isfinite([flow.attention.estimate, flow.mlp.estimate, flow.norm.estimate]).all():
        return (
            f"{subject(flow)}, {removed} {unit} are removed and {lost} lost. Heads or neurons of several sublayers are "
            "ablated together: who makes up for it can’t be told."
        )
    if flow.removed.estimate == 0 and flow.lost.estimate != 0:
        return (
            f"{subject(flow)}, nothing is removed directly, and {lost} {unit} are lost: there is no share to restore."
        )
    surely = flow.removed.estimate > 0 if not flow.certain else flow.removed.low > 0
    if surely:
        return ""
    if flow.removed.high < 0 or (not flow.certain and flow.removed.estimate < 0):
        back = Interval(-flow.removed.estimate, -flow.removed.high, -flow.removed.low)
        end = Interval(-flow.lost.estimate, -flow.lost.high, -flow.lost.low)
        ends = f"{format_interval(end, amount)} are gained" if end.estimate > 0 else f"{lost} are lost"
        return f"{named(flow)} holds {of} back by {format_interval(back, amount)} {unit}: without it {ends} in the end."
    return f"{named(flow)} adds nothing sure to {of}: {removed} {unit} are removed, {lost} lost in the end."


def deck(flow: RepairFlow) -> str:
    """Return the line below the title: model, prompts, positions, who is needed."""
    source = flow.source
    count = f"mean of {source.count:,} prompts" if source.count != 1 else "one prompt"
    return f"{source.model}, {count}, ablated at {positions_in_words(source.positions)}. {_who(flow, _with_way)}"


def short_deck(flow: RepairFlow) -> tuple[str, str]:
    """Return the two lines below the title of a phone."""
    source = flow.source
    count = f"{source.count:,} prompts" if source.count != 1 else "one prompt"
    return f"{source.model}, {count}", _who(flow, lambda _, each: each.label)


def _who(flow: RepairFlow, call: Callable[[RepairFlow, Mediator], str]) -> str:
    if not flow.mediated:
        return "No frozen runs: responses only"
    need = [call(flow, each) for each in flow.mediators if each.necessary]
    alone = [each.label for each in flow.mediators if each.sufficient]
    return f"Necessary: {_some(need)}; sufficient: {_some(alone)}"


def _with_way(flow: RepairFlow, each: Mediator) -> str:
    """Return the label of a necessary mediator, and the norm if it acts through it."""
    return f"{each.label} (through the norm)" if moves_norm(flow, each) else each.label


def _some(labels: list[str]) -> str:
    if not labels:
        return "none surely"
    return ", ".join(labels) if len(labels) <= _NAMED else f"{len(labels)} components"


def name(each: Sublayer) -> str:
    """Return the name of a bar: its label, or `other 7 heads`."""
    return each.label.partition(" of ")[0]


def verb(each: Sublayer, amount: int) -> str:
    """Return the response in words: `writes 0.04 more`, `pushes down 0.15 less`."""
    change = number(abs(each.response.estimate), amount)
    if each.response.estimate >= 0:
        erases = each.clean.estimate < 0 and each.clean.estimate + each.response.estimate < 0
        return f"pushes down {change} less" if erases else f"writes {change} more"
    return f"pushes down {change} more" if each.clean.estimate < 0 else f"writes {change} less"


def bounds(each: Sublayer, amount: int) -> str:
    """Return the interval of a response, in the direction of `verb`; empty if there is none."""
    low, high = each.response.low, each.response.high
    if np.isnan(low):
        return ""
    ends = (low, high) if each.response.estimate >= 0 else (-high, -low)
    return f"[{number(ends[0], amount)}, {number(ends[1], amount)}]"


def signed(value: float, amount: int) -> str:
    """Return a number with its sign."""
    return f"{'+' if value > 0 else ''}{number(value, amount)}"


def note(flow: RepairFlow, each: Sublayer) -> tuple[str, str]:
    """Return the evidence of frozen runs for a sublayer, in one line or, if it is long, two."""
    frozen, amount = flow.mediator(each.label), digits(flow)
    less = each.response.estimate < 0
    if each.frozen:
        return "frozen: it can’t respond", ""
    if frozen is None:
        if less:
            return "adds to what is missing", ""
        return ("a response: no run froze it" if flow.certain else ""), ""
    by, alone = (number(value.estimate, amount) for value in (frozen.restored_by, frozen.restored_alone))
    if frozen.necessary and moves_norm(flow, frozen):
        way = number(frozen.norm.estimate, amount)
        return f"necessary: {by} lost again without it,", f"{way} of it by way of the norm"
    if frozen.necessary:
        return f"necessary: {by} lost again without it", f"alone it brings {alone}" if frozen.sufficient else ""
    if frozen.sufficient:
        return (f"and yet alone it would bring {alone}" if less else f"sufficient: alone it brings {alone}"), ""
    return ("adds to what is missing" if less else "not shown to be needed, nor to be enough"), ""


def short_note(flow: RepairFlow, each: Sublayer) -> str:
    """Return the evidence for a sublayer in a few words."""
    frozen = flow.mediator(each.label)
    if each.frozen:
        return "frozen"
    if each.response.estimate < 0:
        return "adds to gap"
    if frozen is not None and frozen.necessary:
        return f"needed: {number(frozen.restored_by.estimate, digits(flow))}"
    if frozen is not None and frozen.sufficient:
        return "sufficient"
    response = "response" if flow.certain else ""
    return "pushes down less" if verb(each, 2).endswith("less") else response


def moves_norm(flow: RepairFlow, frozen: Mediator) -> bool:
    """Whether a necessary mediator restores mainly by the norm, at least 10% of what is removed."""
    by_norm = frozen.norm.estimate
    return frozen.necessary and by_norm >= max(0.5 * frozen.restored_by.estimate, 0.1 * flow.removed.estimate)


def written(flow: RepairFlow) -> str:
    """Return what the ablated component writes, if that differs from what is removed."""
    differs = abs(flow.written.estimate - flow.removed.estimate) > _WRITTEN_DIFFERS * flow.removed.estimate
    if flow.source.ablation != "zero" or not differs:  # also if it is unknown
        return ""
    return f"of {number(flow.written.estimate, digits(flow))} written"


def total(flow: RepairFlow, *, short: bool = False) -> str:
    """Return the sum that the picture shows, with decimals that add up when rounded, too."""
    parts = (flow.mlp.estimate, flow.attention.estimate, flow.norm.estimate, flow.lost.estimate)
    least = digits(flow)
    amount = next(
        (
            count
            for count in range(least, least + _MORE_DECIMALS + 1)
            if round(sum(round(part, count) for part in parts), count) == round(flow.removed.estimate, count)
        ),
        least,
    )
    names = ("MLPs", "attn." if short else "attention", "norm", "lost")
    text = f"{number(flow.removed.estimate, amount)}{'' if short else ' removed'} ="
    for place, (name, part) in enumerate(zip(names, parts, strict=True)):
        sign = ("−" if round(part, amount) < 0 else "+") if place else ""
        shown = number(abs(part) if place else part, amount)
        text += f" {f'{sign} ' if sign else ''}{shown} {name}"
    return text


def sources(flow: RepairFlow) -> list[str]:
    """Return the parts of the line that says where the numbers come from."""
    source = flow.source
    named_set = f"{source.prompts or 'prompts'}" + (
        f" {short_hash(source.prompts_hash)}" if source.prompts_hash else ""
    )
    level = f"{percent(flow.confidence)} intervals over prompts"
    many = ", at once for all components of a list" if flow.certain else ""
    return [
        f"hydrascope {source.version}".strip(),
        *filter(None, [weights_in_words(source)]),
        named_set,
        f"{source.readout}, {source.sigma} σ",
        *([f"{level}{many}"] if flow.certain else ["one prompt: no intervals"]),
        *(
            [f"half of what is removed is on {flow.half:,} of {source.count:,} prompts"]
            if flow.half and flow.certain
            else []
        ),
        *([f"half of the prompts chose {flow.rival}"] if flow.rival else []),
    ]


def description(flow: RepairFlow) -> str:
    """Return all that the picture shows in words, for those who can't see it."""
    amount, unit = digits(flow), flow.source.unit
    first, second = title(flow)
    drawn = [each for each in flow.sublayers if each.downstream and round(each.response.estimate, amount)]
    largest = sorted(drawn, key=_size)[:12]
    changes = "; ".join(f"{each.label} {format_interval(each.response, amount)}" for each in largest)
    heads = sorted((each for each in flow.heads if round(each.response.estimate, amount)), key=_size)[:12]
    by_head = "; ".join(f"{each.label} {format_interval(each.response, amount)}" for each in heads)
    return (
        f"{why_not(flow) or f'{first} {second}.'} Removed {format_interval(flow.removed, amount)} {unit}, lost "
        f"{format_interval(flow.lost, amount)}. {total(flow)}. {deck(flow)}."
        f"{f' What others write more: {changes}.' if changes else ''}"
        f"{f' By head: {by_head}.' if by_head else ''} {' · '.join(sources(flow))}"
    )


def _size(each: Sublayer | Head) -> float:
    return -abs(each.response.estimate)


def about(flow: RepairFlow) -> dict[str, str]:
    """Return what a saved picture is of, by name; no paths."""
    own = {"ablated": flow.ablated, "frozen runs": "yes" if flow.mediated else "no"}
    return {**as_named(flow.source), **own}
