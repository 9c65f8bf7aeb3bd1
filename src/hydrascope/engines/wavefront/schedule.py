"""When each run of a plan joins the wavefront, what it branches off, and what it writes where: no tensor of a model.

Runs form a tree. A run is what it overrides, by stage; runs that begin alike share that beginning: (k ablated, d
frozen) goes through the layers below d as (k ablated) does, so it branches off that run at d. RowGroup 0 is the clean
run, which is never overridden; every other group is as many rows as there are patches.

A run in which one layer alone may react has a known end: it is the run in which that layer is frozen, too, but for what
the layer writes; and what it would write shows in that run, before it is overwritten. So it is read *aside*, and no row
is made for it: all runs (k ablated, everything after it frozen but d) cost together what one run of k does.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from hydrascope.components.component import Component, Override
from hydrascope.models.language_model import LanguageModel

#: What a run overrides at one stage: components, and whether each is frozen.
Step = tuple[tuple[Component, bool], ...]
Path = tuple[Step, ...]


@dataclass(frozen=True)
class RowGroup:
    """A run, or a beginning that runs share.

    Attributes:
        parent: the group that it is like until it starts.
        start: the stage of the first override of its own.
        own: its own overrides: components, and whether each is frozen.
    """

    parent: int
    start: int
    own: Step


@dataclass(frozen=True)
class Branch:
    """A run that is another one but for what one layer writes, which is read on the way.

    Attributes:
        base: the group that it is like: all that may react is frozen there.
        source: the group in whose rows the layer writes what it would: the base, or what the base branches off.
        sublayer: the one that reacts.
        frozen_units: its heads or neurons that are frozen all the same.
    """

    base: int
    source: int
    sublayer: Component
    frozen_units: tuple[Component, ...]


@dataclass
class SublayerEvents:
    """What happens at one layer.

    Attributes:
        writes: per overridden component, the groups that override it, and whether they freeze it.
        at_inputs: the groups that start here with an input of a head: they join before the block.
        at_units: the groups that start here with a head or neuron: they join where units' values stand.
        at_output: the groups that start here with the whole layer: they join at its output.
        elsewhere: the groups that start at this stage, but in the block's other layer.
    """

    writes: dict[Component, list[tuple[int, bool]]] = field(default_factory=dict)
    at_inputs: list[int] = field(default_factory=list)
    at_units: list[int] = field(default_factory=list)
    at_output: list[int] = field(default_factory=list)
    elsewhere: list[int] = field(default_factory=list)

    @property
    def starting(self) -> list[int]:
        """All groups that join at or after what is overridden here, in their order."""
        return self.at_units + self.at_output


@dataclass(frozen=True)
class Schedule:
    """The groups in the order in which they join.

    Attributes:
        groups: parents before children; entry 0 is the clean run.
        branches: runs that are read on the way of others, counted after the groups.
        index: the group of each run of the plan, or its branch.
        events: what happens at each layer.
    """

    groups: tuple[RowGroup, ...]
    branches: tuple[Branch, ...]
    index: tuple[int, ...]
    events: dict[Component, SublayerEvents]


def schedule(model: LanguageModel, overrides: Sequence[Override]) -> Schedule:
    """Order `runs`, and what they share, by where they start."""
    reacting = _read_branches(model, overrides)
    paths = list(
        dict.fromkeys(
            _path(model, reacting[override].base if override in reacting else override) for override in overrides
        )
    )
    nodes = dict.fromkeys(path for path in [*paths, *_shared(model, paths)] if path)
    parents = {path: next((path[:n] for n in range(len(path) - 1, 0, -1) if path[:n] in nodes), ()) for path in nodes}
    own = {path: tuple(override for step in path[len(parents[path]) :] for override in step) for path in nodes}

    def turn_of(path: Path) -> tuple[int, bool, int, bool]:
        # Where it joins: before the block, or at its first layer, where units' values come before its output.
        first = path[len(parents[path])]
        stage = model.stage(first[0][0])
        block = min(model.sublayers.index(component.sublayer) for component, _ in first)
        before = any(component.is_input for component, _ in first)
        inner = any(c.is_unit and model.sublayers.index(c.sublayer) == block for c, _ in first)
        return stage, not before, block, not inner

    order = sorted(nodes, key=turn_of)
    number = {(): 0} | {path: place for place, path in enumerate(order, start=1)}
    clean = RowGroup(0, -1, ())
    groups = (clean, *(RowGroup(number[parents[path]], turn_of(path)[0], own[path]) for path in order))
    branches = tuple(_branch(model, groups, number[_path(model, each.base)], each) for each in reacting.values())
    place = {override: number[_path(model, override)] for override in overrides if override not in reacting}
    place |= {override: each for each, override in enumerate(reacting, start=len(groups))}
    return Schedule(groups, branches, tuple(place[override] for override in overrides), _turns(model, groups))


@dataclass(frozen=True)
class _Reaction:
    """A run in which one layer alone may react, as another run in which it is frozen."""

    base: Override
    sublayer: Component
    frozen_units: tuple[Component, ...]


def _read_branches(model: LanguageModel, overrides: Sequence[Override]) -> dict[Override, _Reaction]:
    """The runs that cost nothing beside others: their base is asked for itself, or shared."""
    found = {override: each for override in dict.fromkeys(overrides) if (each := _reaction(model, override))}
    wanted = Counter(_path(model, each.base) for each in found.values())
    wanted.update(_path(model, override) for override in dict.fromkeys(overrides) if override not in found)
    return {override: each for override, each in found.items() if wanted[_path(model, each.base)] > 1}


def _reaction(model: LanguageModel, override: Override) -> _Reaction | None:
    if not override.ablated:
        return None
    first = min(map(model.stage, override.ablated))
    # What is ablated later counts as free: it may be ablated at other positions than the last.
    free = [
        sublayer for sublayer in model.sublayers if model.stage(sublayer) > first and sublayer not in override.frozen
    ]
    if len(free) != 1 or any(component.sublayer == free[0] for component in override.ablated):
        return None
    held = tuple(component for component in override.frozen if component.sublayer == free[0] and component.is_unit)
    others = tuple(component for component in override.frozen if component not in held)
    return _Reaction(Override(override.ablated, (*others, free[0])), free[0], held)


def _branch(model: LanguageModel, groups: Sequence[RowGroup], base: int, reaction: _Reaction) -> Branch:
    source = base
    while groups[source].start >= model.stage(reaction.sublayer):
        source = groups[source].parent
    return Branch(base, source, reaction.sublayer, reaction.frozen_units)


def _path(model: LanguageModel, override: Override) -> Path:
    """The overrides of `run` by stage; what nothing ablated reaches is as it was anyway, and needs no freezing."""
    if not override.ablated:
        return ()
    first = min(map(model.stage, override.ablated))
    overrides = [(component, False) for component in override.ablated]
    overrides += [(component, True) for component in override.frozen if model.stage(component) > first]
    overrides.sort(key=lambda override: (model.stage(override[0]), str(override[0])))
    return tuple(tuple(step) for _, step in groupby(overrides, key=lambda override: model.stage(override[0])))


def _shared(model: LanguageModel, paths: Sequence[Path]) -> list[Path]:
    """Beginnings that are no runs of the plan, but which it pays to make once for all that begin so.

    One costs its rows from its start to the top; each group that leaves it saves those up to its own start. The
    longest are decided first: what leaves one that is made leaves no shorter one.
    """
    top, asked = model.stage(model.sublayers[-1]) + 1, set(paths)
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
            groups = 1 if pays or path in asked else leaving[path]
            leaving[before] += groups
            saved[before] += groups * (stage(path) - stage(before))
    return shared


def _turns(model: LanguageModel, groups: Sequence[RowGroup]) -> dict[Component, SublayerEvents]:
    events = {sublayer: SublayerEvents() for sublayer in model.sublayers}
    for number, group in enumerate(groups):
        for component, frozen in group.own:
            events[component.sublayer].writes.setdefault(component, []).append((number, frozen))
        started = {component for component, _ in group.own if model.stage(component) == group.start}
        for sublayer in model.sublayers:
            if model.stage(sublayer) != group.start:
                continue
            here = [component for component in started if component.sublayer == sublayer]
            kind = "at_output" if sublayer in here else "at_units" if here else "elsewhere"
            if any(component.is_input for component in started):
                kind = "at_inputs"
            if kind != "at_inputs" or sublayer.kind == "attn":
                getattr(events[sublayer], kind).append(number)
    return events
