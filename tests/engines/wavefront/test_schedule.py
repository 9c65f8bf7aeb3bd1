"""A plan's runs as a tree: what each writes is what was asked for, and sharing costs nothing that it doesn't save."""

from dataclasses import dataclass
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hydrascope.components.component import Component, Override
from hydrascope.engines.wavefront.schedule import Branch, RowGroup, Schedule, schedule

#: What a group overrides: components, and whether each is frozen.
Overrides = set[tuple[Component, bool]]


@dataclass(frozen=True)
class Depth:
    """All that the order of runs depends on: how many blocks there are, and whether they are parallel."""

    blocks: int
    parallel: bool
    dictionaries: tuple[Component, ...] = ()

    @property
    def sublayers(self) -> tuple[Component, ...]:
        return tuple(Component(block, kind) for block in range(self.blocks) for kind in ("attn", "mlp"))

    def stage(self, component: Component) -> int:
        mlp = component.kind in ("mlp", "neuron")
        return component.block if self.parallel else 2 * component.block + mlp


@st.composite
def plans(draw) -> tuple[Depth, list[Override]]:
    """Runs of few different beginnings, so that many are shared."""
    model = Depth(draw(st.integers(1, 6)), draw(st.booleans()))
    blocks = range(model.blocks)
    pool = [*model.sublayers, *(Component(block, "head", 1) for block in blocks)]
    pool += [Component(block, "neuron", unit) for block in blocks for unit in (0, 1)]
    pool += [Component(block, "query", 1) for block in blocks]
    some = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=6, unique=True))
    runs = []
    for _ in range(draw(st.integers(1, 12))):
        parts = draw(st.lists(st.sampled_from(some), min_size=1, max_size=5, unique=True))
        fitting = [part for part in parts if not (part.is_unit and part.sublayer in parts)]
        fitting.sort(key=lambda part: part.is_input)
        if not fitting[0].is_input:
            runs.append(Override(tuple(fitting[:1]), tuple(fitting[1:])))
    return model, runs or [Override((model.sublayers[0],))]


def wanted(model: Depth, override: Override) -> Overrides:
    """What `run` has to write: what it freezes matters only where something ablated reaches it."""
    first = min(map(model.stage, override.ablated))
    frozen = {(component, True) for component in override.frozen if model.stage(component) > first}
    return {(component, False) for component in override.ablated} | frozen


def written(plan: Schedule, group: int) -> Overrides:
    """What a group writes: its own overrides and those of all that it groups off; or a branch, its sublayer free."""
    if group >= len(plan.groups):
        branch = plan.branches[group - len(plan.groups)]
        return written(plan, branch.base) - {(branch.sublayer, True)} | {(unit, True) for unit in branch.frozen_units}
    own = set(plan.groups[group].own)
    return own if group == 0 else own | written(plan, plan.groups[group].parent)


@settings(max_examples=50, deadline=None)
@given(plans())
def test_every_run_writes_what_it_is_asked_to(asked):
    model, runs = asked
    plan = schedule(model, runs)
    assert len(plan.index) == len(runs)
    for run, group in zip(runs, plan.index, strict=True):
        assert written(plan, group) == wanted(model, run)


@settings(max_examples=50, deadline=None)
@given(plans())
def test_parents_start_earlier_and_write_before_their_children_start(asked):
    model, runs = asked
    plan = schedule(model, runs)
    assert plan.groups[0].own == ()
    for number, group in enumerate(plan.groups[1:], start=1):
        parent = plan.groups[group.parent]
        assert group.parent < number
        assert parent.start < group.start == min(model.stage(component) for component, _ in group.own)
        assert all(model.stage(component) < group.start for component, _ in written(plan, group.parent))
        # What it overrides later, it doesn't share.
        assert len(written(plan, number)) == len(group.own) + len(written(plan, group.parent))


@settings(max_examples=50, deadline=None)
@given(plans())
def test_no_branch_is_made_twice_and_none_for_nobody(asked):
    model, runs = asked
    plan = schedule(model, runs)
    found = [frozenset(written(plan, group)) for group in range(len(plan.groups))]
    assert len(set(found)) == len(found)
    needed = [*plan.index, *(branch.base for branch in plan.branches)]
    parents = [group.parent for group in plan.groups[1:]]
    for group in range(1, len(plan.groups)):
        assert needed.count(group) or parents.count(group) > 1


@settings(max_examples=50, deadline=None)
@given(plans(), st.data())
def test_what_one_sublayer_alone_may_answer_is_read_aside(asked, data):
    """In rows that are on their way before its sublayer, and in which everything below it is as it is in the base."""
    model, _ = asked
    ablated = (data.draw(st.sampled_from(model.sublayers)),)
    below = [layer for layer in model.sublayers if model.stage(layer) > model.stage(ablated[0])]
    alone = [Override(ablated, tuple(layer for layer in below if layer != reacts)) for reacts in below]
    plan = schedule(model, [Override(ablated, tuple(below)), *alone])
    assert len(plan.branches) == len(alone)
    for branch in plan.branches:
        assert branch.base == plan.index[0]
        assert plan.groups[branch.source].start < model.stage(branch.sublayer)
        early = {(c, froze) for c, froze in written(plan, branch.base) if model.stage(c) < model.stage(branch.sublayer)}
        assert early <= written(plan, branch.source)


@settings(max_examples=50, deadline=None)
@given(plans())
def test_turns_say_what_joins_and_what_writes_where(asked):
    """Every group joins once at each sublayer of the stage at which it starts, and groups join in their order."""
    model, runs = asked
    plan = schedule(model, runs)
    joined = []
    for layer in model.sublayers:
        events = plan.events[layer]
        assert events.starting == events.at_units + events.at_output
        here = [n for n, group in enumerate(plan.groups) if n and group.start == model.stage(layer)]
        before = [n for n in here if any(c.is_input for c, _ in own_at(model, plan, n))]
        assert events.at_inputs == (before if layer.kind == "attn" else [])
        joined += events.at_inputs
        joining, starts = sorted(events.starting + events.elsewhere), [n for n in here if n not in before]
        assert joining == starts
        if layer.kind == "mlp" or not model.parallel:
            joined += joining
        writes = {(c, group, frozen) for c, each in events.writes.items() for group, frozen in each}
        expected = {
            (c, number, frozen)
            for number, group in enumerate(plan.groups)
            for c, frozen in group.own
            if c.sublayer == layer
        }
        assert writes == expected
        for number in starts:
            here = {c for c, _ in plan.groups[number].own if c.sublayer == layer}
            assert (number in events.at_output) == (layer in here)
            assert (number in events.at_units) == (bool(here) and layer not in here)
        # Rows that join with a unit join before those that join with the sublayer.
        assert events.at_units == sorted(events.at_units)
        assert events.at_output == sorted(events.at_output)
        if not model.parallel:
            assert events.starting == sorted(events.starting)
    assert joined == list(range(1, len(plan.groups)))


def own_at(model: Depth, plan: Schedule, group: int) -> Overrides:
    """What a group overrides where it starts."""
    start = plan.groups[group].start
    return {(c, frozen) for c, frozen in plan.groups[group].own if model.stage(c) == start}


def cost(model: Depth, kept: list[frozenset]) -> int:
    """Through how many stages the rows of groups go, each from where it leaves the longest other that it begins with.

    Written out from what groups write alone.
    """
    top = model.stage(model.sublayers[-1]) + 1

    def stages(overrides: frozenset) -> list[int]:
        return sorted({model.stage(component) for component, _ in overrides})

    def begins_with(group: frozenset, other: frozenset) -> bool:
        end = max(stages(other))
        return other != group and {each for each in group if model.stage(each[0]) <= end} == other

    total = 0
    for group in kept:
        shared = max((max(stages(other)) for other in kept if begins_with(group, other)), default=-1)
        total += top - next(stage for stage in stages(group) if stage > shared)
    return total


@settings(max_examples=50, deadline=None)
@given(plans())
def test_beginnings_are_shared_only_where_that_saves_more_than_it_costs(asked):
    model, runs = asked
    plan = schedule(model, runs)
    groups = [frozenset(written(plan, group)) for group in range(1, len(plan.groups))]
    here = cost(model, groups)
    assert here == sum(model.stage(model.sublayers[-1]) + 1 - group.start for group in plan.groups[1:])
    asked_for = {*plan.index, *(branch.base for branch in plan.branches)} - {0}
    needed = {groups[group - 1] for group in asked_for if group <= len(groups)}
    for group in set(groups) - needed:
        assert cost(model, [other for other in groups if other != group]) > here


@pytest.mark.parametrize("parallel", [False, True])
def test_a_pair_branches_off_its_first(parallel):
    model = Depth(4, parallel)
    labels = ["attn.0", "attn.0|mlp.2", "mlp.2+attn.0", "attn.3", "attn.0"]
    plan = schedule(model, [Override.parse(label) for label in labels])
    first, frozen, pair, alone, again = (plan.groups[place] for place in plan.index)
    assert first is again
    assert frozen.parent == pair.parent == plan.index[0]
    assert frozen.start == pair.start == model.stage(Component(2, "mlp"))
    assert (first.parent, alone.parent) == (0, 0)
    assert len(plan.groups) == 5


def test_a_beginning_that_no_run_is_may_be_shared():
    """attn.0 with one of many later sublayers frozen or ablated: made once, though nobody asked for attn.0 alone."""
    model = Depth(6, False)
    later = [Override((Component(0, "attn"), Component(block, "mlp"))) for block in range(2, 6)]
    plan = schedule(model, later)
    assert len(plan.groups) == len(later) + 2
    assert {plan.groups[place].parent for place in plan.index} == {1}
    # One run alone shares nothing.
    assert len(schedule(model, later[:1]).groups) == 2


def test_the_clean_run_is_no_branch_of_its_own():
    assert schedule(Depth(2, False), [Override(())]).index == (0,)


def arranged(*labels: str) -> Schedule:
    """In two sequential blocks, as in the examples of the docstrings."""
    return schedule(Depth(2, parallel=False), [Override.parse(label) for label in labels])


def test_the_worked_example_of_three_rows() -> None:
    plan = arranged("attn.0", "attn.0|mlp.1", "mlp.0")
    attn, mlp, last = (Component.parse(label) for label in ("attn.0", "mlp.0", "mlp.1"))
    assert plan.groups[1:] == (
        RowGroup(0, 0, ((attn, False),)),
        RowGroup(0, 1, ((mlp, False),)),
        RowGroup(1, 3, ((last, True),)),
    )
    assert plan.index == (1, 3, 2)
    assert not plan.branches


@pytest.mark.parametrize(
    ("asked", "source", "reacting"), [("attn.0|mlp.0+attn.1", 2, "mlp.1"), ("attn.0|attn.1+mlp.1", 1, "mlp.0")]
)
def test_the_worked_example_of_a_branch(asked: str, source: int, reacting: str) -> None:
    plan = arranged("attn.0", asked, "attn.0|mlp.0+attn.1+mlp.1")
    frozen = tuple((Component.parse(label), True) for label in ("mlp.0", "attn.1", "mlp.1"))
    assert plan.groups[2:] == (RowGroup(1, 1, frozen),)
    assert plan.branches == (Branch(2, source, Component.parse(reacting), ()),)
    assert plan.index == (1, 3, 2)


def test_a_pair_of_heads_leaves_the_row_of_the_earlier_one_at_the_later_one():
    """Count the rows of all pairs: each is paid for above its later head alone."""
    model = Depth(4, parallel=False)
    heads = [Component(block, "head", unit) for block in range(model.blocks) for unit in range(3)]
    pairs = list(combinations(heads, 2))
    plan = schedule(model, [*(Override((head,)) for head in heads), *map(Override, pairs)])
    assert len(plan.groups) == 1 + len(heads) + len(pairs)
    for (first, second), group in zip(pairs, plan.index[len(heads) :], strict=True):
        joined = plan.groups[group]
        assert joined.start == model.stage(second)
        assert joined.parent == (0 if first.block == second.block else plan.index[heads.index(first)])
