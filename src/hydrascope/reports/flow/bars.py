"""The ground of the picture: columns, block numbers, the norm's plate, and all bars."""

import math
from collections.abc import Iterator

from hydrascope.components.component import Component
from hydrascope.reports.flow.drawn import is_part
from hydrascope.reports.flow.plan import KINDS, Plan, after
from hydrascope.reports.flow.repair import Sublayer
from hydrascope.reports.flow.shapes import Shape, Text, line, lines, polygon, rectangle
from hydrascope.reports.flow.words import digits
from hydrascope.reports.summary.interval import number
from hydrascope.reports.summary.tick_text import tick_text
from hydrascope.reports.summary.verdict_text import readout_noun

_NAMES = {"attn": "attention", "mlp": "MLPs"}


def nice(least: float) -> float:
    """Return the smallest of 1, 2, 5, 10, 20, … and 0.5, 0.2, 0.1, … that is at least `least`."""
    choices = (1.0, 2.0, 5.0, 10.0)
    power = 10.0 ** math.floor(math.log10(least))
    return float(next(factor * power for factor in choices if factor * power >= least * (1 - 1e-9)))


def plate(plan: Plan) -> Shape:
    """Return the plate of the final norm, through which everything passes."""
    top, bottom = plan.plate
    left, right = plan.layout.attn[0], plan.layout.mlp[1]
    return Shape("plate", rectangle(left, top, right - left, bottom - top), "final norm")


def axes(plan: Plan) -> Iterator[Shape | Text]:
    """Yield the columns' lines at 0, their ticks and names."""
    layout = plan.layout
    low = layout.bottom + 2
    top = min(top for top, _ in plan.span.values()) + 4
    step = nice((60 if layout.name == "slide" else 34 if layout.full else 24) / plan.bar)
    for kind, column in zip(KINDS, (layout.attn, layout.mlp), strict=True):
        zero = plan.zero[kind]
        yield Shape("axis", line((zero, low), (zero, top)))
        first, last = (
            math.ceil((column[0] - zero) / plan.bar / step),
            math.floor((column[1] - zero) / plan.bar / step),
        )
        for count in range(first, last + 1):
            x = zero + count * step * plan.bar
            yield Shape("tick", line((x, low), (x, low + 4)))
            words = tick_text(count * step)
            yield Text(x, low + 3 + layout.tick, ((words, "faint"),), layout.tick - 1, "middle", step * plan.bar)
        unit = plan.flow.source.unit if layout.full and kind == "mlp" else ""
        name = ((_NAMES[kind], "bold"), (f" {unit} for {readout_noun(plan.flow.source.readout)}", "soft"))[
            : 2 if unit else 1
        ]
        half = layout.measure("".join(text for text, _ in name), layout.note, bold=True) / 2
        x = min(max(zero, half + 2), layout.width - half - 2)
        yield Text(x, layout.bottom + layout.tick * (2.4 if layout.full else 2.65), name, layout.note, "middle")


def block_numbers(plan: Plan) -> Iterator[Shape | Text]:
    """Yield the numbers of every fifth or tenth block, where there is room."""
    layout, blocks = plan.layout, plan.flow.source.depth
    step = 1 if blocks <= 8 else 5 if blocks <= 40 else 10 if blocks <= 100 else 20
    last = float("inf")
    # Labels at the left end 36 em before the axis.
    room, wide = (36 * layout.em - 4.5, blocks > 100) if layout.full else (layout.axis - 6, False)
    for block in range(0, blocks, step):
        own = [each for each in plan.flow.sublayers if block in plan.drawn.blocks[each.label]]
        if any(is_part(each.label) or (wide and _is_named(plan, each)) for each in own):
            continue  # the label of its attention stands there
        ends = [plan.span[each.label] for each in own]
        middle = (min(top for top, _ in ends) + max(bottom for _, bottom in ends)) / 2
        if last - middle < layout.tick:
            continue
        last = middle
        words = ((str(block), "faint"),)
        yield Text(layout.axis - 4, middle + 0.35 * layout.tick, words, layout.tick, "end", room)
        yield Shape("axis", line((layout.axis, middle), (layout.axis + 6, middle)))
    together = max(map(len, plan.drawn.blocks.values()))
    if together > 1 and layout.full:
        words = ((f"up to {together} blocks a row", "faint"),)
        yield Text(layout.axis - 4, layout.bottom + 3 + layout.tick, words, layout.tick - 1, "end", layout.axis - 6)


def _is_named(plan: Plan, each: Sublayer) -> bool:
    return each.kind == "attn" and (each.ablated or each.label in plan.shown)


def brackets(plan: Plan) -> Iterator[Shape]:
    """Yield a bracket at the heads of each group that shares keys and values."""
    layout = plan.layout
    x, tick = (layout.axis - 28 * layout.em, 6 * layout.em) if layout.full else (layout.attn[0] - 5, 3)
    for group in plan.drawn.groups:
        low, high = plan.centre[group[0]], plan.centre[group[-1]]
        words = f"{' and '.join(group)} share keys and values"
        yield Shape("bracket", line((x + tick, low), (x, low), (x, high), (x + tick, high)), words)


def bars(plan: Plan) -> Iterator[Shape]:
    """Yield the bars of all sublayers."""
    for each in plan.flow.sublayers:
        if each.ablated:
            yield from _ablated(plan, each)
        elif each.frozen:
            yield from _frozen(plan, each)
        elif each.label in plan.shown:
            yield from _labelled(plan, each)
        else:
            height = max(1.0, plan.quiet * 0.74)
            yield _bar(plan, each, "quiet", 0.0, each.clean.estimate, height, _about(plan, each))


def _about(plan: Plan, each: Sublayer) -> str:
    amount = digits(plan.flow)
    change = f", {number(each.response.estimate, amount)} more after the ablation" if each.downstream else ""
    return f"{each.label} writes {number(each.clean.estimate, amount)}{change}"


def _bar(plan: Plan, each: Sublayer, role: str, start: float, end: float, height: float, about: str) -> Shape:
    zero = plan.zero[each.kind]
    left, right = zero + min(start, end) * plan.bar, zero + max(start, end) * plan.bar
    y = plan.centre[each.label] - height / 2
    return Shape(role, rectangle(left, y, max(right - left, 0.8), height), about, each.label)


def _ablated(plan: Plan, each: Sublayer) -> Iterator[Shape]:
    """Yield the crossed bar of what is ablated; if it is a unit, also its sublayer's bar."""
    flow, height = plan.flow, plan.layout.bar
    own = [label for label in flow.components if str(Component.parse(label).sublayer) == each.label]
    part = Component.parse(own[0]).is_unit
    value = flow.written.estimate if part and len(flow.components) == 1 else each.clean.estimate
    if value != value:  # a unit that wasn't read
        value = each.clean.estimate
    yield _bar(plan, each, "ablated", 0.0, value, height, f"{' and '.join(own)}: ablated")
    zero, y = plan.zero[each.kind], plan.centre[each.label]
    left, right = sorted((zero, zero + value * plan.bar))
    half = height / 2
    cross = lines([[(left, y - half), (right, y + half)], [(left, y + half), (right, y - half)]])
    yield Shape("cross", cross, "", each.label)
    if part:
        words = f"{each.label} as a whole writes {number(each.clean.estimate, digits(flow))}"
        whole = zero + each.clean.estimate * plan.bar
        left, right = sorted((zero, whole))
        yield Shape("quiet", rectangle(left, y + half + 3, max(right - left, 0.8), 3), words, each.label)


def _frozen(plan: Plan, each: Sublayer) -> Iterator[Shape]:
    """Yield the bar of a component that the user froze, and a cut where its branch would be."""
    yield _bar(plan, each, "bar", 0.0, each.clean.estimate, plan.layout.bar, f"{each.label}: frozen")
    y, size = plan.centre[each.label], plan.layout.bar
    right = each.kind == "mlp"
    x = plan.zero[each.kind] + (min(0.0, each.clean.estimate) if right else max(0.0, each.clean.estimate)) * plan.bar
    x += -1.2 * size if right else 1.2 * size
    strokes = [[(x + shift - 0.3 * size, y + size), (x + shift + 0.3 * size, y - size)] for shift in (-3, 3)]
    yield Shape("cut", lines(strokes), "frozen", each.label)


def _labelled(plan: Plan, each: Sublayer) -> Iterator[Shape]:
    """Yield what stays of a bar, what is new (outlined) and what is gone (dashed)."""
    clean, then = each.clean.estimate, after(each)
    height, about = plan.layout.bar, _about(plan, each)
    stays = min(clean, then) if min(clean, then) > 0 else max(clean, then) if max(clean, then) < 0 else 0.0
    if abs(stays) * plan.bar > 0.3:
        yield _bar(plan, each, "bar", 0.0, stays, height, about)
    role, gone = ("more", "more gone") if then > clean else ("less", "less gone")
    low, high = min(clean, then), max(clean, then)
    if high > 0 and high > max(low, 0):
        yield _bar(plan, each, role if then > clean else gone, max(low, 0), high, height, about)
    if low < 0 and min(high, 0) > low:
        yield _bar(plan, each, role if then < clean else gone, low, min(high, 0), height, about)


def arrows(plan: Plan, components: list[Sublayer]) -> Iterator[Shape]:
    """Yield an arrow to the norm from each component that restores by moving it."""
    layout = plan.layout
    foot = plan.plate[1]
    head = 6 if layout.full else 4
    for count, each in enumerate(components):
        x = layout.mlp[1] - (14 if layout.full else 5) - 3 * head * count
        start = plan.centre[each.label] - layout.bar / 2
        yield Shape("arrow", line((x, start), (x, foot + 1.6 * head)), "", each.label)
        tip = [(x - head, foot + 1.7 * head), (x + head, foot + 1.7 * head), (x, foot)]
        yield Shape("arrow head", polygon(tip), "", each.label)
