"""The labels of the picture: components, the norm, what is lost, many small changes."""

from collections.abc import Iterator, Sequence

from hydrascope.reports.flow.band import SIDE, Stream
from hydrascope.reports.flow.drawn import is_rest
from hydrascope.reports.flow.plan import Plan
from hydrascope.reports.flow.repair import Sublayer
from hydrascope.reports.flow.shapes import Shape, Text, line, lines
from hydrascope.reports.flow.words import (
    bounds,
    digits,
    name,
    note,
    short_note,
    signed,
    verb,
    written,
)
from hydrascope.reports.summary.interval import Interval, format_interval, format_share, number
from hydrascope.reports.summary.verdict_text import NOTABLE

#: The least height of a row at the left with three lines, in rows of the layout.
_THREE_LINES = 0.87
#: The fewest components that are told of together.
_FEW = 4


def component_labels(plan: Plan) -> Iterator[Text]:
    """Yield the labels of all components with a branch."""
    for each in plan.flow.sublayers:
        if each.label not in plan.shown or each.ablated:
            continue
        if plan.layout.full:
            yield from (_right if each.kind == "mlp" else _left)(plan, each)
        else:
            yield from _phone(plan, each)


def _right(plan: Plan, each: Sublayer) -> Iterator[Text]:
    layout, y, amount = plan.layout, plan.centre[each.label], digits(plan.flow)
    room, em = layout.width - layout.labels - 6, layout.em
    first, second = note(plan.flow, each)
    parts: tuple[tuple[str, str], ...] = ((each.label, "bold"),)
    if not each.frozen:
        parts += ((f" {verb(each, amount)} ", "ink"), (bounds(each, amount), "soft"))
    yield Text(layout.labels, y - 3 * em, parts, layout.label, room=room)
    one_line = (
        f"{first} {second}".strip() if not first.endswith(",") else f"{first[:-1]}, {second.replace('of it ', '')}"
    )
    fits = layout.measure(one_line, layout.note) <= room
    if second and not fits and _below(plan, each) >= (19 + 2 * 16) * em:
        yield Text(layout.labels, y + 18 * em, ((first, "soft"),), layout.note, room=room)
        yield Text(layout.labels, y + 18 * em + 1.15 * layout.note, ((second, "soft"),), layout.note, room=room)
    else:
        yield Text(layout.labels, y + 19 * em, ((one_line if second else first, "soft"),), layout.note, room=room)


def _below(plan: Plan, each: Sublayer) -> float:
    """Return the room below a bar until the next label at the right."""
    others = [
        plan.centre[other.label] - 20 * plan.layout.em
        for other in plan.flow.sublayers
        if other.kind == "mlp"
        and (other.label in plan.shown or other.ablated)
        and plan.centre[other.label] > plan.centre[each.label]
    ]
    return min([plan.layout.bottom, *others]) - plan.centre[each.label]


def _left(plan: Plan, each: Sublayer) -> Iterator[Text]:
    layout, y, amount, em = plan.layout, plan.centre[each.label], digits(plan.flow), plan.layout.em
    x, room = layout.axis - 36 * em, layout.axis - 36 * em - 4
    frozen = plan.flow.mediator(each.label)
    third = bounds(each, amount)
    if frozen is not None and frozen.necessary:
        third = f"needed: {number(frozen.restored_by.estimate, amount)}"
    more = "more" if each.response.estimate >= 0 else "less"
    second = "frozen" if each.frozen else f"{number(abs(each.response.estimate), amount)} {more}"
    top, bottom = plan.span[each.label]
    tall = layout.row_left > layout.row and bottom - top >= _THREE_LINES * layout.row_left
    three = third and not each.frozen and tall
    rows = ((-12, name(each)), (6, second), (23, third)) if three else ((-2, name(each)), (18, second))
    for place, (shift, words) in enumerate(rows):
        role, size = ("soft", layout.note) if place or is_rest(each.label) else ("bold", layout.label)
        yield Text(x, y + shift * em, ((words, role),), size, "end", room)


def _phone(plan: Plan, each: Sublayer) -> Iterator[Text]:
    layout, y, amount = plan.layout, plan.centre[each.label], digits(plan.flow)
    change = "" if each.frozen else f" {signed(each.response.estimate, amount)}"
    words = ((name(each), "soft" if is_rest(each.label) else "bold"), (change, "ink"))
    if each.kind == "attn":
        yield Text(
            layout.attn[0], y - 0.75 * layout.bar - 4, words, layout.tick, room=layout.stream[1] - layout.attn[0]
        )
        return
    room = layout.width - layout.labels - 2
    large = each.label in plan.shown[:2] and not each.frozen and plan.flow.certain
    yield Text(layout.labels, y - (8 if large else 1), words, layout.label, room=room)
    if large:
        interval = f"[{number(each.response.low, amount)}, {number(each.response.high, amount)}]"
        yield Text(layout.labels, y + 5, ((interval, "soft"),), layout.tick, room=room)
    yield Text(
        layout.labels, y + (18 if large else 12), ((short_note(plan.flow, each), "soft"),), layout.tick, room=room
    )


def ablated_labels(plan: Plan, stream: Stream) -> Iterator[Text]:
    """Yield the labels of what is ablated, and the number on the band."""
    flow, layout, first = plan.flow, plan.layout, plan.first
    y, em, amount = plan.centre[first.label], layout.em, digits(flow)
    removed = number(flow.removed.estimate, amount)
    own = [label for label in flow.components if label.split(".")[1] == str(first.block)]
    name = own[0] if own else flow.components[0]
    together = len(flow.components) > 1
    says = f"{'together they remove' if together else 'removes'} {format_interval(flow.removed, amount)}"
    if SIDE[first.kind] > 0:
        room = layout.width - layout.labels - 2
        if layout.full:
            yield Text(layout.labels, y - 3 * em, ((f"{name} ablated", "hit"),), layout.label, room=room)
            words = f"{says} {flow.source.unit} {written(flow)}".rstrip()
            yield Text(layout.labels, y + 20 * em, ((words, "soft"),), layout.note, room=room)
        else:
            yield Text(layout.labels, y - 7, ((name, "hit"),), layout.label, room=room)
            yield Text(layout.labels, y + 7, (("ablated:", "soft"),), layout.tick, room=room)
            yield Text(layout.labels, y + 21, ((f"removes {removed}", "soft"),), layout.tick, room=room)
    elif layout.full:
        x, room = layout.axis - 36 * em, layout.axis - 36 * em - 4
        below = ["ablated", f"{'together ' if together else 'removes '}{removed}", *filter(None, [written(flow)])]
        yield Text(x, y - 11 * em, ((name, "hit"),), layout.label, "end", room)
        for count, words in enumerate(below):
            yield Text(x, y + (10 + 21 * count) * em, ((words, "soft"),), layout.note, "end", room)
    else:
        at = y + plan.width / 2 + 1.3 * layout.tick
        parts = ((name, "hit"), (f" ablated: −{removed}", "ink"))
        yield Text(layout.attn[0], at, parts, layout.tick, room=layout.labels - layout.attn[0])
    yield from _on_band(plan, stream, removed)
    for each in flow.sublayers:
        if each.ablated and each.label != first.label:
            yield from _also(plan, each)


def _on_band(plan: Plan, stream: Stream, removed: str) -> Iterator[Text]:
    """Yield the number on the band, where there is room beside the crossed bar."""
    layout, first = plan.layout, plan.first
    zero, bar = plan.zero[first.kind], first.clean.estimate * plan.bar
    if SIDE[first.kind] > 0:
        ends = stream.right[0][0] + layout.inner - 0.6 * plan.width, zero + min(0.0, bar)
    else:
        # In the middle of the turn the band is still there.
        ends = zero + max(0.0, bar), stream.left[0][0] - layout.inner + 0.6 * plan.width
    room, at = ends[1] - ends[0] - 8, plan.centre[first.label] + 0.36 * layout.label
    choices = (f"{removed} missing", removed) if layout.full else (removed,)
    words = next((each for each in choices if layout.measure(each, layout.label, bold=True) < room), None)
    if words is not None and plan.width > 1.2 * layout.label:
        yield Text(sum(ends) / 2, at, ((words, "on_band"),), layout.label, "middle", room)


def _also(plan: Plan, each: Sublayer) -> Iterator[Text]:
    """Yield the label of another component that is ablated together with the first."""
    layout, y = plan.layout, plan.centre[each.label]
    own = [label for label in plan.flow.components if label.split(".")[1] == str(each.block)]
    parts = ((next(iter(own), each.label), "hit"), (" ablated, too", "soft"))
    if each.kind == "mlp":
        yield Text(layout.labels, y + 5, parts, layout.note, room=layout.width - layout.labels - 2)
    elif layout.full:
        x = layout.axis - 36 * layout.em
        yield Text(x, y + 5, parts[:1], layout.note, "end", x - 4)
    else:
        yield Text(layout.attn[0], y - layout.bar - 2, parts[:1], layout.tick)


def norm_label(plan: Plan) -> Iterator[Text]:
    """Yield the label of the final norm."""
    flow, layout, amount = plan.flow, plan.layout, digits(plan.flow)
    room, y = layout.width - layout.labels - 2, plan.norm + 0.32 * layout.label
    value = flow.norm
    if not layout.full:
        parts: tuple[tuple[str, str], ...] = (("norm", "bold"), (f" {signed(value.estimate, amount)}", "ink"))
    elif not plan.norm_branches:
        parts = (("final norm", "bold"), (f" {format_interval(value, amount)}", "soft"))
    else:
        less = Interval(-value.estimate, -value.high, -value.low)
        says, shown = ("makes up", value) if value.estimate > 0 else ("takes another", less)
        estimate, _, interval = format_interval(shown, amount).partition(" ")
        parts = (("final norm", "bold"), (f" {says} {estimate}", "ink"), (f" {interval}" if interval else "", "soft"))
    yield Text(layout.labels, y, parts, layout.label, room=room)


def lost_label(plan: Plan, stream: Stream) -> Iterator[Shape | Text]:
    """Yield the cap of the band, with the interval of what is lost, and its label."""
    flow, layout, amount = plan.flow, plan.layout, digits(plan.flow)
    left, right = stream.ends
    y = plan.end
    yield Shape("cap" if flow.lost.estimate >= 0 else "cap gained", line((left, y), (right, y)))
    if flow.certain:
        low, high = (min(max(left + each * plan.band, 1), layout.width - 1) for each in (flow.lost.low, flow.lost.high))
        ends = [[(low, y - 8), (low, y - 15)], [(low, y - 11.5), (high, y - 11.5)], [(high, y - 8), (high, y - 15)]]
        yield Shape("whisker", lines(ends))
    gained = flow.lost.estimate < 0
    value = Interval(-flow.lost.estimate, -flow.lost.high, -flow.lost.low) if gained else flow.lost
    estimate, _, interval = format_interval(value, amount).partition(" ")
    share = format_share(flow.lost_share).partition(" ")[0] if not gained else ""
    unit = f" {flow.source.unit}{',' if share else ''}" if layout.full else ""
    tail = " ".join(filter(None, (interval + unit, share))).strip()
    parts = ((f"{'gained' if gained else 'lost'} {estimate}", "hit"), (f" {tail}", "soft"))
    half = layout.measure("".join(text for text, _ in parts), layout.label, bold=True) / 2
    x = min(max((left + right) / 2, half + 2), layout.width - half - 2)
    yield Text(x, y - (25 if layout.name == "slide" else 20), parts, layout.label, "middle")


def small_ones(plan: Plan, placed: Sequence[Text]) -> Iterator[Shape | Text]:
    """Yield a bracket on the attention sublayers without a label.

    There is none if they add up to less than 5% of what is removed. The words stand where no other text does; without
    such a place there is no bracket.
    """
    flow, layout = plan.flow, plan.layout
    rest = [each for each in flow.sublayers if each.kind == "attn" and each.downstream and each.label not in plan.shown]
    net, count = sum(each.response.estimate for each in rest), sum(len(plan.drawn.blocks[each.label]) for each in rest)
    if count < _FEW or len(rest) < 2 or abs(net) < NOTABLE * flow.removed.estimate or not layout.full:
        return
    heights = [plan.centre[each.label] for each in rest]
    top, bottom = min(heights), max(heights)
    em, x = layout.em, layout.axis - 44 * layout.em
    more = "less" if net < 0 else "more"
    words = (f"{count} attention", "sublayers", f"write {number(abs(net), digits(flow))}", f"{more} in all")
    tall = 22 * em * len(words)
    taken = [
        (text.y - text.size, text.y + 0.3 * text.size) for text in placed if text.anchor == "end" and text.x < x + 12
    ]
    middle = _free(top, bottom, tall + 8 * em, taken)
    if middle is None:
        return
    pieces = [((x, start), (x, end)) for start, end in _gaps(top, bottom, taken)]
    ends = [((x + 6, y), (x, y)) for y in (top, bottom) if all(not low < y < high for low, high in taken)]
    yield Shape("bracket", lines([*ends, *pieces]))
    for count, each in enumerate(words):
        at = middle + (22 * count - 27) * em
        yield Text(x - 9 * em, at, ((each, "soft"),), layout.note, "end", x - 9 * em - 4)


def _gaps(top: float, bottom: float, taken: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    """Yield the stretches between two heights where no text is."""
    for low, high in sorted(taken):
        if low > top:
            yield top, min(low, bottom)
        top = max(top, high)
        if top >= bottom:
            return
    yield top, bottom


def _free(top: float, bottom: float, tall: float, taken: Sequence[tuple[float, float]]) -> float | None:
    """Return the middle of the free stretch that is nearest to the middle; None without."""
    wanted = (top + bottom) / 2
    places = [wanted, *(high + tall / 2 for _, high in taken), *(low - tall / 2 for low, _ in taken)]
    free = [
        each
        for each in places
        if top <= each <= bottom and all(each + tall / 2 <= low or each - tall / 2 >= high for low, high in taken)
    ]
    return min(free, key=lambda each: abs(each - wanted)) if free else None
