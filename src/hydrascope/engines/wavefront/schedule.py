"""When each run of a plan joins the wavefront, what it branches off, and what it writes where: no tensor of a model.

Runs form a tree. A run is what it overrides, by stage; runs that begin alike share that beginning: (k ablated, d
frozen) goes through the layers below d as (k ablated) does, so it branches off that run at d. Branch 0 is the clean
run, which is never overridden; every other branch is as many rows as there are patches.

A run in which one layer alone may react has a known end: it is the run in which that layer is frozen, too, but for what
the layer writes; and what it would write shows in that run, before it is overwritten. So it is read *aside*, and no row
is made for it: all runs (k ablated, everything after it frozen but d) cost together what one run of k does.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from hydrascope.components.component import Component, Run
from hydrascope.models.language_model import LanguageModel

#: What a run overrides at one stage: components, and whether each is frozen.
Step = tuple[tuple[Component, bool], ...]
Path = tuple[Step, ...]


@dataclass(frozen=True)
class Branch:
    """A run, or a beginning that runs share.

    Attributes:
        parent: the branch that it is like until it starts.
        start: the stage of the first override of its own.
        own: its own overrides: components, and whether each is frozen.
    """

    parent: int
    start: int
    own: Step


@dataclass(frozen=True)
class Aside:
    """A run that is another one but for what one layer writes, which is read on the way.

    Attributes:
        base: the branch that it is like: all that may react is frozen there.
        source: the branch in whose rows the layer writes what it would: the base, or what the base branches off.
        layer: the one that reacts.
        held: its heads or neurons that are frozen all the same.
    """

    base: int
    source: int
    layer: Component
    held: tuple[Component, ...]


@dataclass
class Turn:
    """What happens at one layer.

    Attributes:
        writes: per overridden component, the branches that override it, and whether they freeze it.
        inputs: the branches that start here with an input of a head: they join before the block.
        inner: the branches that start here with a head or neuron: they join where units' values stand.
        outer: the branches that start here with the whole layer: they join at its output.
        idle: the branches that start at this stage, but in the block's other layer.
    """

    writes: dict[Component, list[tuple[int, bool]]] = field(default_factory=dict)
    inputs: list[int] = field(default_factory=list)
    inner: list[int] = field(default_factory=list)
    outer: list[int] = field(default_factory=list)
    idle: list[int] = field(default_factory=list)

    @property
    def starting(self) -> list[int]:
        """All branches that join at or after what is overridden here, in their order."""
        return self.inner + self.outer


@dataclass(frozen=True)
class Schedule:
    """The branches in the order in which they join.

    Attributes:
        branches: parents before children; entry 0 is the clean run.
        asides: runs that are read on the way of others, counted after the branches.
        place: the branch of each run of the plan, or its aside.
        turns: what happens at each layer.
    """

    branches: tuple[Branch, ...]
    asides: tuple[Aside, ...]
    place: tuple[int, ...]
    turns: dict[Component, Turn]


def schedule(model: LanguageModel, runs: Sequence[Run]) -> Schedule:
    """Order `runs`, and what they share, by where they start."""
    reacting = _read_aside(model, runs)
    paths = list(dict.fromkeys(_path(model, reacting[run].base if run in reacting else run) for run in runs))
    nodes = dict.fromkeys(path for path in [*paths, *_shared(model, paths)] if path)
    parents = {path: next((path[:n] for n in range(len(path) - 1, 0, -1) if path[:n] in nodes), ()) for path in nodes}
    own = {path: tuple(override for step in path[len(parents[path]) :] for override in step) for path in nodes}

    def turn_of(path: Path) -> tuple[int, bool, int, bool]:
        # Where it joins: before the block, or at its first layer, where units' values come before its output.
        first = path[len(parents[path])]
        stage = model.stage(first[0][0])
        layer = min(model.components.index(component.whole) for component, _ in first)
        before = any(component.is_input for component, _ in first)
        inner = any(c.is_unit and model.components.index(c.whole) == layer for c, _ in first)
        return stage, not before, layer, not inner

    order = sorted(nodes, key=turn_of)
    number = {(): 0} | {path: place for place, path in enumerate(order, start=1)}
    clean = Branch(0, -1, ())
    branches = (clean, *(Branch(number[parents[path]], turn_of(path)[0], own[path]) for path in order))
    asides = tuple(_aside(model, branches, number[_path(model, each.base)], each) for each in reacting.values())
    place = {run: number[_path(model, run)] for run in runs if run not in reacting}
    place |= {run: each for each, run in enumerate(reacting, start=len(branches))}
    return Schedule(branches, asides, tuple(place[run] for run in runs), _turns(model, branches))


@dataclass(frozen=True)
class _Reaction:
    """A run in which one layer alone may react, as another run in which it is frozen."""

    base: Run
    layer: Component
    held: tuple[Component, ...]


def _read_aside(model: LanguageModel, runs: Sequence[Run]) -> dict[Run, _Reaction]:
    """The runs that cost nothing beside others: their base is asked for itself, or shared."""
    found = {run: each for run in dict.fromkeys(runs) if (each := _reaction(model, run))}
    wanted = Counter(_path(model, each.base) for each in found.values())
    wanted.update(_path(model, run) for run in dict.fromkeys(runs) if run not in found)
    return {run: each for run, each in found.items() if wanted[_path(model, each.base)] > 1}


def _reaction(model: LanguageModel, run: Run) -> _Reaction | None:
    if not run.ablated:
        return None
    first = min(map(model.stage, run.ablated))
    # What is ablated later counts as free: it may be ablated at other positions than the last.
    free = [layer for layer in model.components if model.stage(layer) > first and layer not in run.frozen]
    if len(free) != 1 or any(component.whole == free[0] for component in run.ablated):
        return None
    held = tuple(component for component in run.frozen if component.whole == free[0] and component.is_unit)
    others = tuple(component for component in run.frozen if component not in held)
    return _Reaction(Run(run.ablated, (*others, free[0])), free[0], held)


def _aside(model: LanguageModel, branches: Sequence[Branch], base: int, reaction: _Reaction) -> Aside:
    source = base
    while branches[source].start >= model.stage(reaction.layer):
        source = branches[source].parent
    return Aside(base, source, reaction.layer, reaction.held)


def _path(model: LanguageModel, run: Run) -> Path:
    """The overrides of `run` by stage; what nothing ablated reaches is as it was anyway, and needs no freezing."""
    if not run.ablated:
        return ()
    first = min(map(model.stage, run.ablated))
    overrides = [(component, False) for component in run.ablated]
    overrides += [(component, True) for component in run.frozen if model.stage(component) > first]
    overrides.sort(key=lambda override: (model.stage(override[0]), str(override[0])))
    return tuple(tuple(step) for _, step in groupby(overrides, key=lambda override: model.stage(override[0])))


def _shared(model: LanguageModel, paths: Sequence[Path]) -> list[Path]:
    """Beginnings that are no runs of the plan, but which it pays to make once for all that begin so.

    One costs its rows from its start to the top; each branch that leaves it saves those up to its own start. The
    longest are decided first: what leaves one that is made leaves no shorter one.
    """
    top, asked = model.stage(model.components[-1]) + 1, set(paths)
    leaving: Counter[Path] = Counter()
    saved: Counter[Path] = Counter()
    shared = []

    def stage(path: Path) -> int:
        return model.stage(path[-1][0][0])

    beginnings = dict.fromkeys(path[:length] for path in paths for length in range(1, len(path) + 1))
    for path in sorted(beginnings, key=len, reverse=True):
        pays = path not in asked and saved[path] > top - stage(path)
        if pays:
            shared.append(path)
        if before := path[:-1]:
            branches = 1 if pays or path in asked else leaving[path]
            leaving[before] += branches
            saved[before] += branches * (stage(path) - stage(before))
    return shared


def _turns(model: LanguageModel, branches: Sequence[Branch]) -> dict[Component, Turn]:
    turns = {layer: Turn() for layer in model.components}
    for number, branch in enumerate(branches):
        for component, frozen in branch.own:
            turns[component.whole].writes.setdefault(component, []).append((number, frozen))
        started = {component for component, _ in branch.own if model.stage(component) == branch.start}
        for layer in model.components:
            if model.stage(layer) != branch.start:
                continue
            here = [component for component in started if component.whole == layer]
            kind = "outer" if layer in here else "inner" if here else "idle"
            if any(component.is_input for component in started):
                kind = "inputs"
            if kind != "inputs" or layer.kind == "attn":
                getattr(turns[layer], kind).append(number)
    return turns
