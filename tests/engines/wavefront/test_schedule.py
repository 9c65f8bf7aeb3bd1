"""A plan's runs as a tree: what each writes is what was asked for, and sharing costs nothing that it doesn't save."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hydrascope.components.component import Component, Run
from hydrascope.engines.wavefront.schedule import Schedule, schedule

#: What a branch overrides: components, and whether each is frozen.
Overrides = set[tuple[Component, bool]]


@dataclass(frozen=True)
class Depth:
    """All that the order of runs depends on: how many blocks there are, and whether they are parallel."""

    blocks: int
    parallel: bool

    @property
    def components(self) -> tuple[Component, ...]:
        return tuple(Component(block, kind) for block in range(self.blocks) for kind in ("attn", "mlp"))

    def stage(self, component: Component) -> int:
        mlp = component.kind in ("mlp", "neuron")
        return component.layer if self.parallel else 2 * component.layer + mlp


@st.composite
def plans(draw) -> tuple[Depth, list[Run]]:
    """Runs of few different beginnings, so that many are shared."""
    model = Depth(draw(st.integers(1, 6)), draw(st.booleans()))
    blocks = range(model.blocks)
    pool = [*model.components, *(Component(block, "head", 1) for block in blocks)]
    pool += [Component(block, "neuron", unit) for block in blocks for unit in (0, 1)]
    pool += [Component(block, "query", 1) for block in blocks]
    some = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=6, unique=True))
    runs = []
    for _ in range(draw(st.integers(1, 12))):
        parts = draw(st.lists(st.sampled_from(some), min_size=1, max_size=5, unique=True))
        fitting = [part for part in parts if not (part.is_unit and part.whole in parts)]
        fitting.sort(key=lambda part: part.is_input)
        if not fitting[0].is_input:
            runs.append(Run(tuple(fitting[:1]), tuple(fitting[1:])))
    return model, runs or [Run((model.components[0],))]


def wanted(model: Depth, run: Run) -> Overrides:
    """What `run` has to write: what it freezes matters only where something ablated reaches it."""
    first = min(map(model.stage, run.ablated))
    frozen = {(component, True) for component in run.frozen if model.stage(component) > first}
    return {(component, False) for component in run.ablated} | frozen


def written(plan: Schedule, branch: int) -> Overrides:
    """What a branch writes: its own overrides and those of all that it branches off; or an aside, its layer free."""
    if branch >= len(plan.branches):
        aside = plan.asides[branch - len(plan.branches)]
        return written(plan, aside.base) - {(aside.layer, True)} | {(unit, True) for unit in aside.held}
    own = set(plan.branches[branch].own)
    return own if branch == 0 else own | written(plan, plan.branches[branch].parent)


@settings(max_examples=50, deadline=None)
@given(plans())
def test_every_run_writes_what_it_is_asked_to(asked):
    model, runs = asked
    plan = schedule(model, runs)
    assert len(plan.place) == len(runs)
    for run, branch in zip(runs, plan.place, strict=True):
        assert written(plan, branch) == wanted(model, run)


@settings(max_examples=50, deadline=None)
@given(plans())
def test_parents_start_earlier_and_write_before_their_children_start(asked):
    model, runs = asked
    plan = schedule(model, runs)
    assert plan.branches[0].own == ()
    for number, branch in enumerate(plan.branches[1:], start=1):
        parent = plan.branches[branch.parent]
        assert branch.parent < number
        assert parent.start < branch.start == min(model.stage(component) for component, _ in branch.own)
        assert all(model.stage(component) < branch.start for component, _ in written(plan, branch.parent))
        # What it overrides later, it doesn't share.
        assert len(written(plan, number)) == len(branch.own) + len(written(plan, branch.parent))


@settings(max_examples=50, deadline=None)
@given(plans())
def test_no_branch_is_made_twice_and_none_for_nobody(asked):
    model, runs = asked
    plan = schedule(model, runs)
    found = [frozenset(written(plan, branch)) for branch in range(len(plan.branches))]
    assert len(set(found)) == len(found)
    needed = [*plan.place, *(aside.base for aside in plan.asides)]
    parents = [branch.parent for branch in plan.branches[1:]]
    for branch in range(1, len(plan.branches)):
        assert needed.count(branch) or parents.count(branch) > 1


@settings(max_examples=50, deadline=None)
@given(plans(), st.data())
def test_what_one_layer_alone_may_answer_is_read_aside(asked, data):
    """In rows that are on their way before its layer, and in which everything below it is as it is in the base."""
    model, _ = asked
    ablated = (data.draw(st.sampled_from(model.components)),)
    below = [layer for layer in model.components if model.stage(layer) > model.stage(ablated[0])]
    alone = [Run(ablated, tuple(layer for layer in below if layer != reacts)) for reacts in below]
    plan = schedule(model, [Run(ablated, tuple(below)), *alone])
    assert len(plan.asides) == len(alone)
    for aside in plan.asides:
        assert aside.base == plan.place[0]
        assert plan.branches[aside.source].start < model.stage(aside.layer)
        early = {(c, froze) for c, froze in written(plan, aside.base) if model.stage(c) < model.stage(aside.layer)}
        assert early <= written(plan, aside.source)


@settings(max_examples=50, deadline=None)
@given(plans())
def test_turns_say_what_joins_and_what_writes_where(asked):
    """Every branch joins once at each layer of the stage at which it starts, and branches join in their order."""
    model, runs = asked
    plan = schedule(model, runs)
    joined = []
    for layer in model.components:
        turn = plan.turns[layer]
        assert turn.starting == turn.inner + turn.outer
        here = [n for n, branch in enumerate(plan.branches) if n and branch.start == model.stage(layer)]
        before = [n for n in here if any(c.is_input for c, _ in own_at(model, plan, n))]
        assert turn.inputs == (before if layer.kind == "attn" else [])
        joined += turn.inputs
        joining, starts = sorted(turn.starting + turn.idle), [n for n in here if n not in before]
        assert joining == starts
        if layer.kind == "mlp" or not model.parallel:
            joined += joining
        writes = {(c, branch, frozen) for c, each in turn.writes.items() for branch, frozen in each}
        expected = {
            (c, number, frozen)
            for number, branch in enumerate(plan.branches)
            for c, frozen in branch.own
            if c.whole == layer
        }
        assert writes == expected
        for number in starts:
            here = {c for c, _ in plan.branches[number].own if c.whole == layer}
            assert (number in turn.outer) == (layer in here)
            assert (number in turn.inner) == (bool(here) and layer not in here)
        # Rows that join with a unit join before those that join with the layer.
        assert turn.inner == sorted(turn.inner)
        assert turn.outer == sorted(turn.outer)
        if not model.parallel:
            assert turn.starting == sorted(turn.starting)
    assert joined == list(range(1, len(plan.branches)))


def own_at(model: Depth, plan: Schedule, branch: int) -> Overrides:
    """What a branch overrides where it starts."""
    start = plan.branches[branch].start
    return {(c, frozen) for c, frozen in plan.branches[branch].own if model.stage(c) == start}


def cost(model: Depth, kept: list[frozenset]) -> int:
    """Through how many stages the rows of branches go, each from where it leaves the longest other that it begins with.

    Written out from what branches write alone.
    """
    top = model.stage(model.components[-1]) + 1

    def stages(overrides: frozenset) -> list[int]:
        return sorted({model.stage(component) for component, _ in overrides})

    def begins_with(branch: frozenset, other: frozenset) -> bool:
        end = max(stages(other))
        return other != branch and {each for each in branch if model.stage(each[0]) <= end} == other

    total = 0
    for branch in kept:
        shared = max((max(stages(other)) for other in kept if begins_with(branch, other)), default=-1)
        total += top - next(stage for stage in stages(branch) if stage > shared)
    return total


@settings(max_examples=50, deadline=None)
@given(plans())
def test_beginnings_are_shared_only_where_that_saves_more_than_it_costs(asked):
    model, runs = asked
    plan = schedule(model, runs)
    branches = [frozenset(written(plan, branch)) for branch in range(1, len(plan.branches))]
    here = cost(model, branches)
    assert here == sum(model.stage(model.components[-1]) + 1 - branch.start for branch in plan.branches[1:])
    asked_for = {*plan.place, *(aside.base for aside in plan.asides)} - {0}
    needed = {branches[branch - 1] for branch in asked_for if branch <= len(branches)}
    for branch in set(branches) - needed:
        assert cost(model, [other for other in branches if other != branch]) > here


@pytest.mark.parametrize("parallel", [False, True])
def test_a_pair_branches_off_its_first(parallel):
    model = Depth(4, parallel)
    labels = ["attn.0", "attn.0|mlp.2", "mlp.2+attn.0", "attn.3", "attn.0"]
    plan = schedule(model, [Run.parse(label) for label in labels])
    first, frozen, pair, alone, again = (plan.branches[place] for place in plan.place)
    assert first is again
    assert frozen.parent == pair.parent == plan.place[0]
    assert frozen.start == pair.start == model.stage(Component(2, "mlp"))
    assert (first.parent, alone.parent) == (0, 0)
    assert len(plan.branches) == 5


def test_a_beginning_that_no_run_is_may_be_shared():
    """attn.0 with one of many later layers frozen or ablated: made once, though nobody asked for attn.0 alone."""
    model = Depth(6, False)
    later = [Run((Component(0, "attn"), Component(layer, "mlp"))) for layer in range(2, 6)]
    plan = schedule(model, later)
    assert len(plan.branches) == len(later) + 2
    assert {plan.branches[place].parent for place in plan.place} == {1}
    # One run alone shares nothing.
    assert len(schedule(model, later[:1]).branches) == 2


def test_the_clean_run_is_no_branch_of_its_own():
    assert schedule(Depth(2, False), [Run(())]).place == (0,)
