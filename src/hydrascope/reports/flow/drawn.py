"""The bars of the picture: sublayers, labelled heads, quiet blocks that share a row."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from hydrascope.reports.flow.repair import Head, RepairFlow, Sublayer
from hydrascope.reports.summary.interval import UNKNOWN, Interval


@dataclass(frozen=True)
class Drawn:
    """A flow by the bars of its picture; the sums are those of the flow.

    Attributes:
        flow: the flow, with a sublayer for each bar, from below.
        shown: the labels of the bars that have a branch and a label.
        blocks: the blocks of each bar, by label.
        groups: the labels of heads that share keys and values.
    """

    flow: RepairFlow
    shown: tuple[str, ...]
    blocks: Mapping[str, range]
    groups: tuple[tuple[str, ...], ...]


def drawn(flow: RepairFlow, shown: Sequence[str], most: int) -> Drawn:
    """Return a flow by the bars of its picture.

    An attention sublayer with labelled heads is opened: a bar for each of them, and one for all else that it writes. A
    network of more than `most` blocks has neighbouring blocks together, pair by pair, where none is labelled, ablated
    or frozen.

        >>> drawn(flow, ["mlp.5"], 120).shown                                             # doctest: +SKIP
        ('mlp.5',)
    """
    heads = [each for each in flow.heads if each.label in shown]
    opened = {f"attn.{each.block}" for each in heads}
    loud = {each.block for each in flow.sublayers if each.ablated or each.frozen or each.label in shown}
    spans = _spans(flow, loud | {each.block for each in heads}, most)
    by_block = {block: list(group) for block, group in groupby(flow.sublayers, key=lambda each: each.block)}
    bars: list[Sublayer] = []
    blocks: dict[str, range] = {}
    others: list[str] = []
    for span in spans:
        own = list(_together([by_block[block] for block in span]) if len(span) > 1 else by_block[span[0]])
        for each in own:
            parts = [each]
            if each.label in opened:
                parts = _opened(flow, each, [head for head in heads if head.block == each.block])
                others.append(parts[0].label)
            bars += parts
            blocks |= dict.fromkeys((part.label for part in parts), span)
    groups = groupby((head for head in heads if head.group >= 0), key=lambda head: (head.block, head.group))
    shared = tuple(tuple(head.label for head in group) for _, group in groups)
    return Drawn(
        replace(flow, sublayers=tuple(bars)),
        (*shown, *others),
        blocks,
        tuple(group for group in shared if len(group) > 1),
    )


def is_part(label: str) -> bool:
    """Whether a bar is a part of an attention sublayer: a head, or the other heads."""
    return label.startswith("head.") or is_rest(label)


def is_rest(label: str) -> bool:
    """Whether a bar is all that an opened sublayer writes beside its labelled heads."""
    return " of attn." in label


def _opened(flow: RepairFlow, each: Sublayer, heads: Sequence[Head]) -> list[Sublayer]:
    """Return the bars of an attention sublayer: the other heads, then the labelled ones."""
    count = flow.heads_each - len(heads)
    name = f"other {count} heads" if count > 1 else "the other head" if count == 1 else "all else"
    clean, response = (
        Interval(value, UNKNOWN.low, UNKNOWN.high)
        for value in (
            each.clean.estimate - sum(head.clean.estimate for head in heads),
            each.response.estimate - sum(head.response.estimate for head in heads),
        )
    )
    rest = replace(each, label=f"{name} of {each.label}", clean=clean, response=response)
    return [rest, *(replace(each, label=head.label, clean=head.clean, response=head.response) for head in heads)]


def _spans(flow: RepairFlow, loud: set[int], most: int) -> list[range]:
    """Return the blocks of each row, from below: quiet neighbours are paired until few are left."""
    can_respond = {each.label: each.downstream for each in flow.sublayers}
    blocks = sorted({each.block for each in flow.sublayers})
    found = [range(block, block + 1) for block in blocks]

    def alike(span: range) -> tuple[object, ...]:
        block = span[0]
        return (block if block in loud else -1, can_respond[f"attn.{block}"], can_respond[f"mlp.{block}"])

    while len(found) > most:
        runs = [list(run) for _, run in groupby(found, key=alike)]
        pairs = [run[place : place + 2] for run in runs for place in range(0, len(run), 2)]
        paired = [range(pair[0][0], pair[-1][-1] + 1) for pair in pairs]
        if len(paired) == len(found):
            break
        found = paired
    return found


def _together(blocks: Sequence[Sequence[Sublayer]]) -> Iterator[Sublayer]:
    """Yield the sublayers of neighbouring blocks, one of each kind: what they write together."""
    for same in zip(*blocks, strict=True):
        first, last = same[0], same[-1]
        clean, response = (
            Interval(sum(value.estimate for value in values), UNKNOWN.low, UNKNOWN.high)
            for values in ([each.clean for each in same], [each.response for each in same])
        )
        yield replace(first, label=f"{first.label}–{last.block}", clean=clean, response=response)
