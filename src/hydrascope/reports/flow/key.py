"""The key below the picture: fills, scale, sum."""

from collections.abc import Iterator

from hydrascope.reports.flow.band import Stream, pieces
from hydrascope.reports.flow.bars import nice
from hydrascope.reports.flow.plan import Plan
from hydrascope.reports.flow.shapes import Shape, Text, lines, rectangle
from hydrascope.reports.flow.words import total

_LONG = {
    "response": "writes more (a response)",
    "necessary": "necessary: frozen, it is lost again",
    "sufficient": "sufficient: it helps even alone",
    "both": "both",
    "worse": "writes less: more is missing",
    "surplus": "more than all has come back",
}
_SHORT = _LONG | {
    "necessary": "necessary",
    "sufficient": "sufficient",
    "worse": "writes less",
    "surplus": "more than all",
}


def key(plan: Plan, stream: Stream) -> Iterator[Shape | Text]:
    """Yield the fills that the picture has, or might have, then the scale and the sum."""
    layout = plan.layout
    used = {branch.role for branch in stream.branches} | {"response"}
    if plan.flow.mediated:
        used |= {"necessary", "sufficient"}
    if any(not is_band for is_band, _ in pieces(stream)):
        used.add("surplus")
    names = _LONG if layout.full else _SHORT
    em = layout.em
    box = (34 * em, 16 * em) if layout.full else (22, 10)
    size = layout.tick + (1 if layout.name == "slide" else 0.5)
    gap, rise = (26 * em, 30 * em) if layout.full else (12, 20)
    x, y = layout.left, layout.bottom + (78 * em if layout.full else 52)
    for role, words in names.items():
        if role not in used:
            continue
        wide = layout.measure(words, size)
        if x > layout.left and x + box[0] + 8 + wide > layout.width - 4:
            x, y = layout.left, y + rise
        yield Shape(role, rectangle(x, y - box[1] + 2, *box))
        yield Text(x + box[0] + 8, y, ((words, "ink"),), size, room=layout.width - x - box[0] - 10)
        x += box[0] + 8 + wide + gap
    yield from _scale(plan, y + (33 * em if layout.full else 22))


def _scale(plan: Plan, y: float) -> Iterator[Shape | Text]:
    """Yield the ruler of the band and of the bars, and the sum."""
    layout, em = plan.layout, plan.layout.em
    unit = plan.flow.source.unit
    value = 0.5 if unit == "logits" and 18 <= 0.5 * plan.band <= 120 else nice(24 / plan.band)
    length = value * plan.band
    yield Shape(
        "scale",
        lines(
            [
                [(layout.left, y - 10), (layout.left, y)],
                [(layout.left, y - 5), (layout.left + length, y - 5)],
                [(layout.left + length, y - 10), (layout.left + length, y)],
            ]
        ),
    )
    same = abs(plan.band - plan.bar) < 1e-6 * plan.bar
    amount = {0.5: "½ logit", 1: "1 logit"}.get(value, f"{value:g} logits") if unit == "logits" else f"{value:g} {unit}"
    bars = (
        "Bars: what each component writes, block 0 below; grey: unchanged."
        if layout.full
        else "Bars: what each writes."
    )
    words = f"{amount}, {'bands and bars' if same else 'bands'}. {bars}"
    start = layout.left + length + 10
    sum_words = total(plan.flow, short=not layout.full)
    below = 33 * em if layout.full else 19
    if layout.name == "slide":
        wide = min(layout.measure(sum_words, layout.tick), 0.45 * layout.width)
        yield Text(start, y, ((words, "soft"),), layout.tick, room=layout.width - 50 - wide - start)
        yield Text(layout.width - 30, y, ((sum_words, "ink"),), layout.tick, "end", wide)
    else:
        room = layout.width - layout.left - 4
        yield Text(start, y, ((words, "soft"),), layout.tick, room=layout.width - start - 4)
        yield Text(layout.left, y + below, ((sum_words, "ink"),), layout.tick, room=room)
        y += below
    for count, note in enumerate(_notes(plan), 1):
        yield Text(
            layout.left, y + 0.8 * below * count, ((note, "soft"),), layout.tick, room=layout.width - layout.left
        )


def _notes(plan: Plan) -> Iterator[str]:
    """Yield how to read what few pictures have: shared rows and brackets."""
    together = max(map(len, plan.drawn.blocks.values()))
    if together > 1:
        yield f"Quiet blocks: up to {together} a row, with the sum of what they write."
    if plan.drawn.groups:
        yield "Bracket: heads that share keys and values."
