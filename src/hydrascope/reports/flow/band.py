"""The band of what is missing, and the branches that leave it or join it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from hydrascope.reports.flow.plan import Plan, after
from hydrascope.reports.flow.repair import RepairFlow, Sublayer
from hydrascope.reports.flow.shapes import Point, Shape, Step, line, lines, polygon, turn
from hydrascope.reports.flow.words import digits, moves_norm
from hydrascope.reports.summary.interval import format_interval, number

#: Branches below this width are a line.
_THIN = 1.2
#: The overlap of pieces of the band, in pixels.
_OVERLAP = 1.0
#: The side of the stream on which each kind stands.
SIDE = {"attn": -1, "mlp": 1}


@dataclass(frozen=True)
class Branch:
    """A branch of the band.

    Attributes:
        component: the label of the sublayer; empty for the norm.
        role: its fill.
        edge: the band's edge below it.
        moved: the band's edge above it.
        height: the middle of its level stretch.
        tip: the end of its level stretch.
        side: −1 at the left, 1 at the right.
        value: what it makes up for, in the readout's unit; below 0 it joins the band.
        about: text on hover.
    """

    component: str
    role: str
    edge: float
    moved: float
    height: float
    tip: float
    side: int
    value: float
    about: str


@dataclass(frozen=True)
class Stream:
    """The edges of the band, from below, and its branches.

    Attributes:
        left: the points of the left edge; where a branch leaves, two have the same height.
        right: the same of the right edge.
        branches: the branches, from below.
    """

    left: tuple[Point, ...]
    right: tuple[Point, ...]
    branches: tuple[Branch, ...]

    @property
    def ends(self) -> tuple[float, float]:
        """The left and the right edge at the top."""
        return self.left[-1][0], self.right[-1][0]


def stream_of(plan: Plan) -> Stream:
    """Return the edges of the band and its branches."""
    bottom = plan.centre[plan.first.label] - plan.width / 2 - plan.layout.inner
    edges: dict[int, list[Point]] = {-1: [(plan.origin, bottom)], 1: [(plan.origin + plan.width, bottom)]}
    at = {side: edge[0][0] for side, edge in edges.items()}
    branches = []
    for each in plan.flow.sublayers:
        if not each.downstream:
            continue
        side, height, value = SIDE[each.kind], plan.centre[each.label], plan.step[each.label]
        x, moved = at[side], at[side] - side * value * plan.band
        at[side] = moved
        if each.label not in plan.shown:
            # The edge passes the middle of its step here: a slope, since a step would look like a finding.
            edges[side].append(((x + moved) / 2, height))
            continue
        branches.append(_branch(plan, each, x, moved))
        leaves = _leaves(branches[-1], plan) if abs(value) * plan.band >= _THIN else height
        edges[side] += [(x, leaves), (moved, leaves)]
    x, moved = at[1], at[1] - plan.flow.norm.estimate * plan.band
    if plan.norm_branches:
        branches.append(_norm_branch(plan, x, moved))
        leaves = _leaves(branches[-1], plan)
        edges[1] += [(x, leaves), (moved, leaves)]
    else:
        edges[1] += [(x, plan.plate[1]), (moved, plan.plate[0])]
    edges[-1].append((at[-1], plan.plate[1]))
    edges[1].append((moved, plan.end))
    edges[-1].append((at[-1], plan.end))
    return Stream(tuple(edges[-1]), tuple(edges[1]), tuple(branches))


def _branch(plan: Plan, each: Sublayer, x: float, moved: float) -> Branch:
    value = each.response.estimate
    zero, ends = plan.zero[each.kind], (0.0, each.clean.estimate, after(each))
    tip = zero + (max(ends) if each.kind == "attn" else min(ends)) * plan.bar
    words = f"{each.label}: {format_interval(each.response, digits(plan.flow))} {plan.flow.source.unit}"
    role = evidence(plan.flow, each)
    return Branch(each.label, role, x, moved, plan.centre[each.label], tip, SIDE[each.kind], value, words)


def evidence(flow: RepairFlow, each: Sublayer) -> str:
    """Return the role of a component's branch: what frozen runs show of it."""
    if each.response.estimate < 0:
        return "worse"
    frozen = flow.mediator(each.label)
    if frozen is None:
        return "response"
    if frozen.necessary:
        return "both" if frozen.sufficient else "necessary"
    return "sufficient" if frozen.sufficient else "response"


def movers(plan: Plan) -> list[Sublayer]:
    """Return the labelled components that restore mainly by moving the norm."""
    found = []
    for each in plan.flow.sublayers:
        frozen = plan.flow.mediator(each.label)
        if each.label in plan.shown and frozen is not None and moves_norm(plan.flow, frozen):
            found.append(each)
    return found


def _norm_branch(plan: Plan, x: float, moved: float) -> Branch:
    value = plan.flow.norm.estimate
    roles = {evidence(plan.flow, each) for each in movers(plan)}
    role = "response" if not roles else "both" if "both" in roles else "necessary"
    words = f"final norm: {format_interval(plan.flow.norm, digits(plan.flow))} {plan.flow.source.unit}"
    tip = plan.layout.mlp[1] - 4
    return Branch("", role if value > 0 else "worse", x, moved, plan.norm, tip, 1, value, words)


def _leaves(branch: Branch, plan: Plan) -> float:
    """Return the height at which a branch leaves the band, or joins it."""
    reach = abs(branch.value) * plan.band / 2 + plan.layout.inner
    return branch.height + (reach if branch.value > 0 else -reach)


def branch_shapes(plan: Plan, branch: Branch) -> Iterator[Shape]:
    """Yield the shapes of a branch."""
    thick = abs(branch.value) * plan.band
    if thick < _THIN:
        role = "thin" if branch.value >= 0 else "thin worse"
        yield Shape(
            role, line((branch.edge, branch.height), (branch.tip, branch.height)), branch.about, branch.component
        )
        return
    # A branch that leaves turns at the edge below it, one that joins at the edge above it; the rest is the same.
    leaves = _leaves(branch, plan)
    inside, outside = (branch.moved, branch.edge) if branch.value > 0 else (branch.edge, branch.moved)
    start = outside + branch.side * plan.layout.inner
    away = -thick / 2 if branch.value > 0 else thick / 2
    far, near = branch.height + away, branch.height - away
    tip = branch.side * max(branch.side * branch.tip, branch.side * start)
    # It reaches into the band, since two pieces that only touch would show a seam.
    into = leaves + (_OVERLAP if branch.value > 0 else -_OVERLAP)
    steps: tuple[Step, ...] = (
        ("M", inside, into),
        ("L", inside, leaves),
        turn((inside, leaves), (start, far), upright=True),
        ("L", tip, far),
        ("L", tip, near),
        ("L", start, near),
        turn((start, near), (outside, leaves), upright=False),
        ("L", outside, into),
    )  # open: there is no outline where it leaves the band
    if branch.value < 0:
        yield Shape("worse", steps, branch.about, branch.component)
        return
    fade = (inside, leaves), (inside + branch.side * (thick + plan.layout.inner + 10), far)
    yield Shape(branch.role, steps, branch.about, branch.component, fade)


def band_shapes(plan: Plan, stream: Stream) -> Iterator[Shape]:
    """Yield the band, its surplus where more than all comes back, and its edges."""
    flow, amount = plan.flow, digits(plan.flow)
    words = f"missing: {number(flow.removed.estimate, amount)} {flow.source.unit} at first, "
    words += f"{number(flow.lost.estimate, amount)} in the end"
    yield Shape("band", _source(plan, stream), words)
    surplus = []
    for is_band, points in pieces(stream):
        if is_band:
            yield Shape("band", polygon(points), words)
        else:
            surplus.append(Shape("surplus", polygon(points), "more than all has come back"))
    yield Shape("edge", _source_edges(plan, stream))
    yield Shape("edge", lines(_chains(stream.left)))
    yield Shape("edge", lines(_chains(stream.right)))
    yield from surplus


def _corners(plan: Plan, stream: Stream) -> tuple[Point, Point, Point, Point]:
    """Return where the band starts, above and below, and its turn ends, inside and outside."""
    left, right = stream.left[0], stream.right[0]
    at, half = plan.centre[plan.first.label], plan.width / 2
    x = plan.zero[plan.first.kind]
    inner, outer = (right, left) if SIDE[plan.first.kind] > 0 else (left, right)
    return (x, at - half), (x, at + half), inner, outer


def _source(plan: Plan, stream: Stream) -> tuple[Step, ...]:
    above, below, inner, outer = _corners(plan, stream)
    bend = inner[0] + SIDE[plan.first.kind] * plan.layout.inner
    return (
        ("M", *above),
        ("L", bend, above[1]),
        turn((bend, above[1]), inner, upright=False),
        # It reaches into the next piece: two pieces that only touch would show a seam.
        ("L", inner[0], inner[1] - _OVERLAP),
        ("L", outer[0], outer[1] - _OVERLAP),
        ("L", *outer),
        turn(outer, (bend, below[1]), upright=True),
        ("L", *below),
        ("Z",),
    )


def _source_edges(plan: Plan, stream: Stream) -> tuple[Step, ...]:
    above, below, inner, outer = _corners(plan, stream)
    bend = inner[0] + SIDE[plan.first.kind] * plan.layout.inner
    return (
        ("M", *inner),
        turn(inner, (bend, above[1]), upright=True),
        ("L", *above),
        ("L", *below),
        ("L", bend, below[1]),
        turn((bend, below[1]), outer, upright=False),
    )


def _chains(edge: tuple[Point, ...]) -> list[list[Point]]:
    """Return an edge in pieces, without the level steps where branches leave."""
    found: list[list[Point]] = [[edge[0]]]
    for before, point in pairwise(edge):
        if before[1] == point[1] and before[0] != point[0]:
            found.append([point])
        else:
            found[-1].append(point)
    return [piece for piece in found if len(piece) > 1]


def pieces(stream: Stream) -> Iterator[tuple[bool, list[Point]]]:
    """Yield the polygons between the edges.

    With each comes whether the left edge is at the left: it isn't where more than all has come back.
    """
    heights = sorted({y for _, y in (*stream.left, *stream.right)}, reverse=True)
    slabs: list[tuple[bool, list[Point], list[Point]]] = []
    for low, high in pairwise(heights):
        left, right = (_between(edge, low, high) for edge in (stream.left, stream.right))
        widths = [right[0] - left[0], right[1] - left[1]]
        cuts = [(low, left[0], right[0]), (high, left[1], right[1])]
        if widths[0] * widths[1] < 0:
            part = widths[0] / (widths[0] - widths[1])
            x = left[0] + part * (left[1] - left[0])
            cuts.insert(1, (low + part * (high - low), x, x))
        for (y0, l0, r0), (y1, l1, r1) in pairwise(cuts):
            slabs.append((r0 + r1 >= l0 + l1, [(l0, y0), (l1, y1)], [(r0, y0), (r1, y1)]))
    while slabs:
        is_band = slabs[0][0]
        count = next((place for place, slab in enumerate(slabs) if slab[0] != is_band), len(slabs))
        group, slabs = slabs[:count], slabs[count:]
        lefts = [point for _, points, _ in group for point in points]
        rights = [point for _, _, points in group for point in points]
        yield is_band, [*lefts, *reversed(rights)]


def _between(edge: tuple[Point, ...], low: float, high: float) -> tuple[float, float]:
    """Return where an edge is at the lower and the upper end of a slab without a corner."""
    for (x0, y0), (x1, y1) in pairwise(edge):
        if y0 > y1 and y0 >= low and y1 <= high:
            return (x0 + (x1 - x0) * (y0 - low) / (y0 - y1), x0 + (x1 - x0) * (y0 - high) / (y0 - y1))
    raise AssertionError("an edge has no piece at this height")
