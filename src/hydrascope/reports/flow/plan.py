"""The plan of a flow's picture: labelled components, scales, the height of every row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from hydrascope.components.component import Component
from hydrascope.reports.flow.drawn import Drawn, drawn, is_part
from hydrascope.reports.flow.layout import Layout
from hydrascope.reports.flow.repair import Head, RepairFlow, Sublayer
from hydrascope.reports.summary.verdict_text import NOTABLE

KINDS = ("attn", "mlp")
#: Small responses are evened out over so many neighbours of their kind on either side.
_REACH = 3
#: The least factor of labelled rows, and of the band's width, before labels are left out.
_ROWS_SHRINK, _BAND_SHRINKS = 0.88, 0.35
#: The most rows of blocks, and the next choices where that leaves no room for all labels.
_MOST_ROWS = (120, 80, 40)
#: The height of a head's row, compared with that of a sublayer.
_THIN = 0.76


@dataclass(frozen=True)
class Plan:
    """The plan of a picture, in pixels.

    Attributes:
        drawn: the numbers, by bars.
        layout: the layout.
        band: the scale of band and branches, in pixels a unit.
        bar: the scale of bars, likewise.
        zero: the place of 0 in the columns, by kind.
        span: the upper and lower end of each sublayer's row, by label.
        centre: the height of each sublayer's bar, by label.
        quiet: the height of a row without a label.
        norm: the height of the middle of the norm.
        plate: the upper and lower end of the norm's plate.
        end: the upper end of the band.
        step: the change of the band's width at each sublayer, by label: what it writes more.
        origin: the left edge of the band where it turns upwards.
    """

    drawn: Drawn
    layout: Layout
    band: float
    bar: float
    zero: Mapping[str, float]
    span: Mapping[str, tuple[float, float]]
    centre: Mapping[str, float]
    quiet: float
    norm: float
    plate: tuple[float, float]
    end: float
    step: Mapping[str, float]
    origin: float

    @property
    def flow(self) -> RepairFlow:
        """The numbers, with a sublayer for each bar."""
        return self.drawn.flow

    @property
    def shown(self) -> tuple[str, ...]:
        """The labels of the bars that have a branch and a label."""
        return self.drawn.shown

    @property
    def first(self) -> Sublayer:
        """The first ablated sublayer, from which the band rises."""
        return next(each for each in self.flow.sublayers if each.ablated)

    @property
    def width(self) -> float:
        """The width of the band where it begins."""
        return self.flow.removed.estimate * self.band

    @property
    def norm_branches(self) -> bool:
        """Whether the norm has a branch: its interval excludes 0, and it can be seen."""
        return is_sure(self.flow.norm.low, self.flow.norm.high) and abs(self.flow.norm.estimate) * self.band >= 1.5


def is_sure(low: float, high: float) -> bool:
    """Whether an interval excludes 0, or there is none, as on a single prompt."""
    return bool(np.isnan(low)) or low * high > 0


def labelled(flow: RepairFlow, most: int) -> list[str]:
    """Return the labels of the components that have a branch, the largest first.

    These surely write more or less, or are necessary, by at least 5% of what is removed. Components that the user froze
    come first. Heads stand for their sublayer, unless frozen runs show something of the sublayer and froze no head.
    """

    def size(each: Sublayer | Head) -> float:
        mediator = flow.mediator(each.label)
        needed = mediator.restored_by.estimate if mediator is not None and mediator.necessary else 0.0
        change = each.response.estimate if is_sure(each.response.low, each.response.high) else 0.0
        return max(abs(change), needed)

    least = NOTABLE * flow.removed.estimate
    frozen = [each.label for each in flow.sublayers if each.frozen]
    ranks: dict[str, float] = {}
    for each in flow.sublayers:
        if not each.downstream or each.frozen:
            continue
        heads = sorted((head for head in _heads(flow, each) if size(head) >= least), key=size, reverse=True)
        ranks |= {head.label: size(head) for head in heads} or {each.label: size(each)}
        if heads:
            # Its largest head stands for the sublayer, too.
            ranks[heads[0].label] = max(size(heads[0]), size(each))
    able = [label for label, rank in ranks.items() if rank >= least]
    return [*frozen, *sorted(able, key=lambda label: ranks[label], reverse=True)][:most]


def _heads(flow: RepairFlow, each: Sublayer) -> list[Head]:
    """Return the heads that may stand for a sublayer."""
    if each.kind != "attn":
        return []
    heads = [head for head in flow.heads if head.block == each.block]
    frozen = flow.mediator(each.label)
    known = frozen is not None and (frozen.necessary or frozen.sufficient)
    return heads if not known or any(flow.mediator(head.label) for head in heads) else []


def make_plan(flow: RepairFlow, layout: Layout, labels: int) -> Plan:
    """Return the plan of a picture.

    Without room quiet blocks share rows, and then labels are left out. The picture of a small network stays low: its
    plan has a lower layout.
    """
    every = labelled(flow, labels)
    fewer = ((every[:count], most) for count in range(len(every), -1, -1) for most in _MOST_ROWS)
    plan, shown, most = next((plan, *each) for each in fewer if (plan := _try_plan(flow, layout, *each)) is not None)
    spare = min(top for top, _ in plan.span.values()) - _head(flow, layout, plan.band) - layout.top
    if spare < 1:
        return plan
    low = replace(layout, bottom=layout.bottom - spare, height=layout.height - spare)
    return _try_plan(flow, low, shown, most) or plan


def _try_plan(flow: RepairFlow, layout: Layout, shown: list[str], most: int) -> Plan | None:
    """Return the plan with these labels; None if there is no room."""
    found = drawn(flow, shown, most)
    flow, shown = found.flow, list(found.shown)
    step = {each.label: each.response.estimate for each in flow.sublayers if each.downstream} | _smooth(flow, shown)
    bar, zero = _columns(flow, layout)
    band = _band_scale(flow, layout, bar, _extent(flow, step))
    shrink, least = 1.0, band * _BAND_SHRINKS
    while True:
        heights = _heights(flow, layout, shown, band, shrink)
        quiet = [label for label, height in heights.items() if height is None]
        room = layout.bottom - layout.top - sum(each or 0 for each in heights.values()) - _head(flow, layout, band)
        if room >= len(quiet) * layout.quiet[0]:
            break
        if shrink > _ROWS_SHRINK:
            shrink -= 0.02
        elif band > least:
            band *= 0.97
        elif room > 0.4 * len(quiet) and not shown:
            break
        elif not shown:
            band *= 0.9
        else:
            return None
    height = min(layout.quiet[1], room / max(len(quiet), 1))
    return _place(found, layout, step, bar, zero, band, heights, height)


def _norm_height(flow: RepairFlow, layout: Layout, band: float) -> float:
    """Return the height of the norm's branch, or of its plate alone."""
    sure = is_sure(flow.norm.low, flow.norm.high)
    return max(abs(flow.norm.estimate) * band if sure else 0, 0.42 * layout.norm)


def _head(flow: RepairFlow, layout: Layout, band: float) -> float:
    """Return the room above the blocks, for the norm and for what is lost."""
    return 1.55 * layout.norm + _norm_height(flow, layout, band) + layout.lost


def _heights(
    flow: RepairFlow, layout: Layout, shown: Sequence[str], band: float, shrink: float
) -> dict[str, float | None]:
    """Return each row's height by the label of its first sublayer; None for a quiet row."""
    found: dict[str, float | None] = {}
    first = next(each.label for each in flow.sublayers if each.ablated)
    for row in rows(flow):
        own = [_height(flow, layout, each, first, shown, band, shrink) for each in row]
        known = [each for each in own if each is not None]
        found[row[0].label] = max(known) if known else None
    return found


def _height(
    flow: RepairFlow, layout: Layout, each: Sublayer, first: str, shown: Sequence[str], band: float, shrink: float
) -> float | None:
    around = layout.pad + layout.inner
    left = each.kind == "attn"
    if each.label == first:
        text = (4.2 * layout.note if left else layout.row) if layout.full else 2 * layout.row
        under = 2 * layout.tick if left and not layout.full else 0
        return max(flow.removed.estimate * band + around + under, text)
    if each.ablated:
        return layout.row * shrink
    if each.label not in shown:
        return None
    tall = not layout.full and not left and each.label in shown[:2]
    needed = flow.mediator(each.label)
    thin = _THIN if is_part(each.label) and not (needed is not None and needed.necessary) else 1.0
    least = (layout.row_left if left else layout.row) * shrink * thin + (layout.tick if tall else 0)
    return max(abs(each.response.estimate if each.downstream else 0) * band + around, least)


def rows(flow: RepairFlow) -> list[list[Sublayer]]:
    """Return the bars of each row, from below: one, or two if sublayers are parallel."""
    found = [[each] for each in flow.sublayers]
    if flow.source.parallel:
        for mlp in [row for row in found if row[0].kind == "mlp"]:
            found[found.index(mlp) - 1] += mlp
            found.remove(mlp)
    return found


def _place(
    found: Drawn,
    layout: Layout,
    step: Mapping[str, float],
    bar: float,
    zero: Mapping[str, float],
    band: float,
    heights: Mapping[str, float | None],
    quiet: float,
) -> Plan:
    """Return the plan once all sizes are known: rows are stacked from below."""
    flow, shown = found.flow, found.shown
    below, span, centre = layout.bottom, {}, {}
    first = next(each.label for each in flow.sublayers if each.ablated)
    for row in rows(flow):
        known = heights[row[0].label]
        height = quiet if known is None else known
        for each in row:
            span[each.label] = (below - height, below)
            centre[each.label] = _centre(flow, layout, each, first, shown, band, (below - height, below))
        below -= height
    norm = _norm_height(flow, layout, band)
    middle = below - 0.55 * layout.norm - norm / 2
    left, right = _extent(flow, step)
    room = layout.stream[1] - layout.stream[0]
    return Plan(
        found,
        layout,
        band,
        bar,
        zero,
        span,
        centre,
        quiet,
        middle,
        (middle - norm / 2 - 4, middle + norm / 2 + 4),
        middle - norm / 2 - 0.5 * layout.lost,
        step,
        layout.stream[0] + (room - (right - left) * band) / 2 - left * band,
    )


def _centre(
    flow: RepairFlow,
    layout: Layout,
    each: Sublayer,
    first: str,
    shown: Sequence[str],
    band: float,
    span: tuple[float, float],
) -> float:
    """Return the height of a sublayer's bar: its branch has room to turn there."""
    top, bottom = span
    if each.label == first:
        return bottom - (flow.removed.estimate * band + layout.pad) / 2 - _under(each, layout)
    if each.label not in shown or not each.downstream:
        return (top + bottom) / 2
    reach = abs(each.response.estimate) * band / 2 + layout.inner + 1
    if each.response.estimate >= 0:
        return min((top + bottom) / 2, bottom - reach)
    return max((top + bottom) / 2, top + reach)


def _under(each: Sublayer, layout: Layout) -> float:
    """Return the room below the band for its label: on a phone, if it starts at the left."""
    return 2 * layout.tick if each.kind == "attn" and not layout.full else 0


def _columns(flow: RepairFlow, layout: Layout) -> tuple[float, dict[str, float]]:
    """Return the scale of bars and the place of 0 in either column."""
    ends = {}
    for kind in KINDS:
        values = [0.0]
        for each in flow.sublayers:
            if each.kind == kind:
                values += [each.clean.estimate, after(each)]
        if Component.parse(flow.components[0]).is_unit and flow.written.estimate == flow.written.estimate:
            values.append(flow.written.estimate)
        ends[kind] = min(values), max(values)
    column = {"attn": layout.attn, "mlp": layout.mlp}
    scales = [
        (column[kind][1] - column[kind][0] - 8) / (high - low) for kind, (low, high) in ends.items() if high > low
    ]
    bar = min(scales, default=1.0)
    zero = {}
    for kind, (low, high) in ends.items():
        spare = column[kind][1] - column[kind][0] - 8 - (high - low) * bar
        zero[kind] = column[kind][0] + 4 - low * bar + (spare if kind == "attn" else 0) * (0.5 if low < 0 else 0)
    zero["attn"] = min(zero["attn"], column["attn"][0] + 0.45 * (column["attn"][1] - column["attn"][0]))
    zero["attn"] = max(zero["attn"], column["attn"][0] + 4 - ends["attn"][0] * bar)
    return bar, zero


def after(each: Sublayer) -> float:
    """Return what a sublayer writes after the ablation; as before if it can't respond."""
    return each.clean.estimate + (each.response.estimate if each.downstream else 0.0)


def _band_scale(flow: RepairFlow, layout: Layout, bar: float, extent: tuple[float, float]) -> float:
    """Return the scale of the band: that of bars, if the band is then neither thin nor wide."""
    removed = flow.removed.estimate
    least, most = layout.band
    scale = bar if least <= removed * bar <= most else min(max(removed * bar, least), most) / removed
    room = layout.stream[1] - layout.stream[0] - 2 * layout.inner - 8
    branches = [abs(each.response.estimate) for each in flow.sublayers if each.downstream]
    tallest = 0.3 * (layout.bottom - layout.top)
    return min([scale, room / (extent[1] - extent[0]), *(tallest / each for each in branches if each > 0)])


def _extent(flow: RepairFlow, step: Mapping[str, float]) -> tuple[float, float]:
    """Return the leftmost and rightmost place of the band, in units from where it begins."""
    left, right = [0.0], [flow.removed.estimate]
    for each in flow.sublayers:
        if each.downstream:
            edge, sign = (left, 1) if each.kind == "attn" else (right, -1)
            edge.append(edge[-1] + sign * step[each.label])
    right.append(right[-1] - flow.norm.estimate)
    return min(*left, *right), max(*left, *right)


def _smooth(flow: RepairFlow, shown: Sequence[str]) -> dict[str, float]:
    """Return the responses of components without a label, evened out over neighbours.

    Neighbours are of the same kind, with no labelled one between them; the sums stay.
    """
    found: dict[str, float] = {}
    for kind in KINDS:
        able = [each for each in flow.sublayers if each.kind == kind and each.downstream]
        for is_shown, group in groupby(able, key=lambda each: each.label in shown):
            if is_shown:
                continue
            run = list(group)
            for place, each in enumerate(run):
                near = run[max(0, place - _REACH) : place + _REACH + 1]
                for other in near:
                    found[other.label] = found.get(other.label, 0.0) + each.response.estimate / len(near)
    return found
