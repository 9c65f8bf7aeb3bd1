"""The geometry of the repair flow: from its numbers to shapes and texts, with nothing drawn."""

from collections.abc import Iterable
from dataclasses import replace
from math import isfinite

from hydrascope.reports.flow import words
from hydrascope.reports.flow.band import band_shapes, branch_shapes, movers, stream_of
from hydrascope.reports.flow.bars import arrows, axes, bars, block_numbers, brackets, plate
from hydrascope.reports.flow.key import key
from hydrascope.reports.flow.labels import ablated_labels, component_labels, lost_label, norm_label, small_ones
from hydrascope.reports.flow.layout import SLIDE, Layout
from hydrascope.reports.flow.plan import make_plan
from hydrascope.reports.flow.repair import RepairFlow
from hydrascope.reports.flow.shapes import Picture, Shape, Text

#: The most components with a label.
LABELS = 6
#: A text that is too wide may shrink by this factor; beyond, its end is cut.
_LEAST = 0.72
#: A title in three rows has letters of this share of the size of one in two rows.
_THREE_ROWS = 0.8
#: The room below the last line.
_BELOW = 14.0


def lay_out(flow: RepairFlow, layout: Layout = SLIDE, labels: int = LABELS) -> Picture:
    """Return the shapes and texts of a repair flow's picture.

    A band, as wide as what is missing, rises from the ablated component. Branches as wide as the responses leave it to
    what writes more, and join it from what writes less; what reaches the top is lost. So widths add up. Frozen runs
    decide how a branch is filled. If nothing is surely removed, the picture says so in one sentence.

        >>> picture = hs.reports.flow.lay_out(hs.reports.flow.repair_flow(results, "attn.3"))
        >>> picture.title.startswith("With attn.3")
        True

    Args:
        flow: the numbers.
        layout: one of `LAYOUTS`.
        labels: the most components with a branch and a label.
    """
    why = words.why_not(flow)
    if why:
        return _sentence(flow, layout, why)
    plan = make_plan(flow, layout, labels)
    layout = plan.layout
    stream = stream_of(plan)
    shapes, texts = _sorted([*axes(plan), *block_numbers(plan)])
    shapes += [plate(plan), *band_shapes(plan, stream)]
    for branch in stream.branches:
        shapes += branch_shapes(plan, branch)
    shapes += [*arrows(plan, movers(plan)), *bars(plan), *brackets(plan)]
    texts += [*component_labels(plan), *ablated_labels(plan, stream), *norm_label(plan)]
    for more in (lost_label(plan, stream), small_ones(plan, texts), key(plan, stream)):
        added = _sorted(more)
        shapes, texts = shapes + added[0], texts + added[1]
    lowest = max(text.y for text in texts)
    source = _source(flow, layout, lowest, layout.height)
    return Picture(
        name=layout.name,
        width=layout.width,
        top=0.0,
        bottom=source[-1].y + _BELOW,
        title=f"{' '.join(words.title(flow))}",
        description=words.description(flow),
        shapes=tuple(shapes),
        texts=tuple(_fitted(each, layout) for each in _alike(texts, layout)),
        heading=tuple(_fitted(each, layout) for each in _alike(_heading(flow, layout, *words.title(flow)), layout)),
        source=tuple(_fitted(each, layout) for each in source),
        stroke=layout.stroke,
        band=plan.band,
        bar=plan.bar,
    )


def _sorted(many: Iterable[Shape | Text]) -> tuple[list[Shape], list[Text]]:
    found = list(many)
    return [each for each in found if isinstance(each, Shape)], [each for each in found if isinstance(each, Text)]


def _heading(flow: RepairFlow, layout: Layout, first: str, second: str) -> list[Text]:
    """Return the title, in two lines on a phone or three if it is long, and what is below."""
    room = layout.width - 2 * layout.left
    if layout.full:
        base, deck = (58.0, 92.0) if layout.name == "slide" else (26.0, 50.0)
        return [
            Text(layout.left, base, ((f"{first} {second}", "bold"),), layout.title, room=room),
            Text(layout.left, deck, ((words.deck(flow), "soft"),), layout.deck, room=room),
        ]
    rows, size, lines = [first, second], layout.title, [26, 48, 67, 82]
    if any(layout.measure(row, _LEAST * size, bold=True) > room for row in rows):
        size *= _THREE_ROWS
        wrapped, lines = _wrapped(f"{first} {second}", size, room, layout), [24, 42, 60, 75, 88]
        rows = [*wrapped[:2], " ".join(wrapped[2:])]
    below = [*((row, "bold", size) for row in rows), *((row, "soft", layout.deck) for row in words.short_deck(flow))]
    return [
        Text(layout.left, y, ((row, role),), own, room=room)
        for y, (row, role, own) in zip(lines[-len(below) :], below, strict=True)
    ]


def _source(flow: RepairFlow, layout: Layout, above: float, bottom: float) -> list[Text]:
    """Return the lines that say where the numbers come from.

    They stand at the bottom, or lower if there is text.
    """
    room, rows = layout.width - 2 * layout.left, [""]
    for part in words.sources(flow):
        longer = f"{rows[-1]} · {part}" if rows[-1] else part
        if layout.measure(longer, layout.source) <= room or not rows[-1]:
            rows[-1] = longer
        else:
            rows.append(part)
    start = max(bottom - _BELOW - (len(rows) - 1) * 1.35 * layout.source, above + 2 * layout.source)
    return [
        Text(layout.left, start + 1.35 * layout.source * count, ((row, "faint"),), layout.source, room=room)
        for count, row in enumerate(rows)
    ]


def _sentence(flow: RepairFlow, layout: Layout, why: str) -> Picture:
    """Return a picture that says in a sentence why there is no flow."""
    room, size = layout.width - 2 * layout.left, 0.72 * layout.title
    rows = _wrapped(why, size, room, layout)
    y = 1.7 * size
    heading = [
        Text(layout.left, y + 1.3 * size * count, ((row, "bold"),), size, room=room) for count, row in enumerate(rows)
    ]
    y += 1.3 * size * len(rows)
    decks = (words.deck(flow),) if layout.full else words.short_deck(flow)
    for line in (*decks, *_sum(flow, layout)):
        heading.append(Text(layout.left, y, ((line, "soft"),), layout.deck, room=room))
        y += 1.4 * layout.deck
    source = _source(flow, layout, y, 0.0)
    return Picture(
        name=layout.name,
        width=layout.width,
        top=0.0,
        bottom=source[-1].y + _BELOW,
        title=why,
        description=words.description(flow),
        shapes=(),
        texts=(),
        heading=tuple(_fitted(each, layout) for each in heading),
        source=tuple(_fitted(each, layout) for each in source),
        stroke=layout.stroke,
    )


def _wrapped(sentence: str, size: float, room: float, layout: Layout) -> list[str]:
    """Return a bold sentence in rows that are no wider than the room, where words allow it."""
    rows: list[str] = []
    for word in sentence.split(" "):
        if rows and layout.measure(f"{rows[-1]} {word}", size, bold=True) <= room:
            rows[-1] += f" {word}"
        else:
            rows.append(word)
    return rows


def _alike(texts: list[Text], layout: Layout) -> list[Text]:
    """Return texts with one size for each column and size: the smallest that they need."""
    factors: dict[tuple[float, str, float], float] = {}
    for text in texts:
        place = text.x, text.anchor, text.size
        factors[place] = min(factors.get(place, 1.0), text.room / max(_measured(text, layout), 1e-9))
    return [
        replace(text, size=text.size * min(1.0, max(_LEAST, factors[text.x, text.anchor, text.size]))) for text in texts
    ]


def _sum(flow: RepairFlow, layout: Layout) -> list[str]:
    """Return the sum, if its parts are known."""
    return [words.total(flow, short=not layout.full)] if isfinite(flow.norm.estimate) else []


def _fitted(text: Text, layout: Layout) -> Text:
    """Return a text that takes no more than its room: smaller if that is enough, else cut."""
    text = replace(text, parts=tuple((part, role) for part, role in text.parts if part))
    wide = _measured(text, layout)
    if wide <= text.room:
        return text
    text = replace(text, size=text.size * max(_LEAST, text.room / wide))
    while text.words and _measured(text, layout) > text.room * 1.001:
        *others, (last, role) = text.parts
        kept = last.rstrip("…")[:-1]
        text = replace(text, parts=(*others, (f"{kept}…", role)) if kept else tuple(others))
    return text


def _measured(text: Text, layout: Layout) -> float:
    return sum(layout.measure(part, text.size, bold=role in BOLD) for part, role in text.parts)


#: The roles of text that are bold.
BOLD = ("bold", "hit", "on_band")
