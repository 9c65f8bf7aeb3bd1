"""Decide where the rows of overrides join the wavefront, and which rows they copy.

Overrides form a tree. An override is a path of steps, one for each stage at which it overrides components. Overrides
that begin with the same steps share their rows so far: (k ablated, d frozen) goes through the sublayers below d as (k
ablated) does, so its rows join at d, as copies of that group's rows. Group 0 is the clean row, which is never
overridden; each other group has one row a patch. No tensor of a model is needed for any of it.

Two sequential blocks, whose sublayers are stages 0 to 3, one patch, and the overrides `attn.0`, `attn.0|mlp.1` (attn.0
ablated, mlp.1 frozen) and `mlp.0` make three groups of one row beside the clean row:

    row  override      joins at  copies  overwritten
    0    (clean)
    1    attn.0        attn.0    row 0   attn.0, by the patch
    2    mlp.0         mlp.0     row 0   mlp.0, by the patch
    3    attn.0|mlp.1  mlp.1     row 1   mlp.1, by its clean activation

           attn.0  mlp.0   attn.1  mlp.1
    row 0  ●───────●───────●───────●────
    row 1  ✕───────●───────●───────●────
    row 2          ✕───────●───────●────
    row 3                          ✕────

`Schedule.groups` has them in this order, and `Schedule.index`, in the order asked, is (1, 3, 2).

An override in which one sublayer alone may react needs no row (`branches`): all overrides (k ablated, everything after
it frozen but d) together cost as much as one override of k.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import groupby

from hydrascope.components.component import Component, Override
from hydrascope.components.order import follows, stage
from hydrascope.models.language_model import LanguageModel

#: The components that are overridden at one stage, and whether each is frozen.
Step = tuple[tuple[Component, bool], ...]
Path = tuple[Step, ...]


@dataclass(frozen=True)
class RowGroup:
    """The rows of an override, or of a beginning that several overrides share.

    Attributes:
        parent: the group of which its rows are copies when they join.
        start: the first stage at which they are overwritten otherwise than the parent's.
        own: the components that are overwritten from there on, and whether each is frozen.
    """

    parent: int
    start: int
    own: Step


@dataclass(frozen=True)
class Branch:
    """An override that equals its base except for one sublayer's output.

    Attributes:
        base: the group in which that sublayer is frozen, too.
        source: the group in whose rows the sublayer writes the branch's output: the base, or a group above it if the
            base joins later than the sublayer's input.
        sublayer: the sublayer that reacts.
        frozen_units: its heads or neurons that are frozen all the same.
    """

    base: int
    source: int
    sublayer: Component
    frozen_units: tuple[Component, ...]


@dataclass
class SublayerEvents:
    """The groups that join or are overwritten at one sublayer.

    Attributes:
        writes: per overridden component, the groups that override it, and whether they freeze it.
        at_inputs: the groups that start here with an input of a head or a term of the residual stream: they join before
            the block.
        at_units: the groups that start here with a head, a neuron, or a term of these: they join at the activations of
            units.
        at_output: the groups that start here with the sublayer or a term of its output: they join at its output.
        elsewhere: the groups that start at this stage, but in the block's other sublayer.
    """

    writes: dict[Component, list[tuple[int, bool]]] = field(default_factory=dict)
    at_inputs: list[int] = field(default_factory=list)
    at_units: list[int] = field(default_factory=list)
    at_output: list[int] = field(default_factory=list)
    elsewhere: list[int] = field(default_factory=list)

    @property
    def starting(self) -> list[int]:
        """List the groups that join at units or at the output, in their order."""
        return self.at_units + self.at_output


@dataclass(frozen=True)
class Schedule:
    """The groups and branches of a list of overrides.

    Attributes:
        groups: in the order in which they join, parents before children; entry 0 is the clean row.
        branches: the overrides that need no rows; they are numbered after the groups.
        index: the group or branch of each override.
        events: per sublayer, the groups that join or are overwritten there; per residual stream with a dictionary, its
            writes.
    """

    groups: tuple[RowGroup, ...]
    branches: tuple[Branch, ...]
    index: tuple[int, ...]
    events: dict[Component, SublayerEvents]


@dataclass(frozen=True)
class _Order:
    """All of a model that a schedule depends on.

    Attributes:
        sublayers: the sublayers, in causal order.
        parallel: whether attention and MLP of a block read the same stream.
        dictionaries: the sublayers and streams with a dictionary.
    """

    sublayers: tuple[Component, ...]
    parallel: bool
    dictionaries: tuple[Component, ...]

    def stage(self, component: Component) -> int:
        """Return the stage of a component, as the model does."""
        return stage(component, parallel=self.parallel)


def schedule(model: LanguageModel, overrides: Sequence[Override], read: Sequence[Component] = ()) -> Schedule:
    """Arrange overrides, and the beginnings that they share, in the order in which they join.

    Overrides are arranged once for all prompts.

    Args:
        model: the model.
        overrides: the overrides.
        read: the units and terms that are read. Terms are read in rows only: with any of them, no override becomes a
            branch.
    """
    order = _Order(tuple(model.sublayers), model.parallel, tuple(model.dictionaries))
    return _arrange(order, tuple(overrides), any(component.is_term for component in read))


@lru_cache(16)  # all passes over a prompt
def _arrange(model: _Order, overrides: tuple[Override, ...], reads_terms: bool) -> Schedule:
    reacting = {} if reads_terms else _read_branches(model, overrides)
    bases = {override: reacting[override].base if override in reacting else override for override in overrides}
    path_of = {base: _path(model, base) for base in dict.fromkeys(bases.values())}
    paths = list(dict.fromkeys(path_of.values()))
    nodes = dict.fromkeys(path for path in [*paths, *_shared(model, paths)] if path)
    parents = {path: next((path[:n] for n in range(len(path) - 1, 0, -1) if path[:n] in nodes), ()) for path in nodes}
    own = {path: tuple(override for step in path[len(parents[path]) :] for override in step) for path in nodes}

    @cache
    def joins_at(first: Step) -> tuple[int, bool, int, bool]:
        # Before the block, or at its first overridden sublayer, where units come before the output.
        stage = model.stage(first[0][0])
        before = any(component.entry == "block" for component, _ in first)
        inside = [component for component, _ in first if component.place != "stream"]
        block = min((model.sublayers.index(component.sublayer) for component in inside), default=0)
        inner = any(c.entry == "units" and model.sublayers.index(c.sublayer) == block for c in inside)
        return stage, not before, block, not inner

    joining = {path: joins_at(path[len(parents[path])]) for path in nodes}
    order = sorted(nodes, key=joining.__getitem__)
    number = {(): 0} | {path: place for place, path in enumerate(order, start=1)}
    clean = RowGroup(0, -1, ())
    groups = (clean, *(RowGroup(number[parents[path]], joining[path][0], own[path]) for path in order))
    branches = tuple(_branch(model, groups, number[path_of[each.base]], each) for each in reacting.values())
    branch_of = {override: each for each, override in enumerate(reacting, start=len(groups))}
    index = tuple(branch_of.get(override, number[path_of[bases[override]]]) for override in overrides)
    return Schedule(groups, branches, index, _events(model, groups))


@dataclass(frozen=True)
class _Reaction:
    """An override in which one sublayer alone may react; in the base it is frozen, too."""

    base: Override
    sublayer: Component
    frozen_units: tuple[Component, ...]


def _read_branches(model: _Order, overrides: Sequence[Override]) -> dict[Override, _Reaction]:
    """Find the overrides that become branches: those whose base is asked for, too, or is shared."""
    stages = [model.stage(sublayer) for sublayer in model.sublayers]
    found = {override: each for override in dict.fromkeys(overrides) if (each := _reaction(model, stages, override))}
    if not found:
        return {}
    wanted = Counter(_path(model, each.base) for each in found.values())
    wanted.update(_path(model, override) for override in dict.fromkeys(overrides) if override not in found)
    return {override: each for override, each in found.items() if wanted[_path(model, each.base)] > 1}


def _reaction(model: _Order, stages: Sequence[int], override: Override) -> _Reaction | None:
    """Return the only reaction that an override leaves free; None if there are none or several.

    Args:
        model: the model.
        stages: the stages of its sublayers.
        override: the override.
    """
    if not override.ablated or any(component.is_term for component in override.overridden):
        return None
    later = model.sublayers[bisect_right(stages, min(map(model.stage, override.ablated))) :]
    if len(later) > len(override.frozen) + 1:
        return None
    # What is ablated later counts as free: it may be ablated at other positions than the last.
    free = [sublayer for sublayer in later if sublayer not in override.frozen]
    if len(free) != 1 or any(component.sublayer == free[0] for component in override.ablated):
        return None
    units = tuple(component for component in override.frozen if component.sublayer == free[0] and component.is_unit)
    others = tuple(component for component in override.frozen if component not in units)
    return _Reaction(Override(override.ablated, (*others, free[0])), free[0], units)


def _branch(model: _Order, groups: Sequence[RowGroup], base: int, reaction: _Reaction) -> Branch:
    source = base
    while groups[source].start >= model.stage(reaction.sublayer):
        source = groups[source].parent
    return Branch(base, source, reaction.sublayer, reaction.frozen_units)


def _path(model: _Order, override: Override) -> Path:
    """Cut an override into steps, without frozen components that no ablated one can reach."""
    if not override.ablated:
        return ()
    overrides = [(component, False) for component in override.ablated]
    overrides += [
        (component, True)
        for component in override.frozen
        if any(follows(model, component, ablated) for ablated in override.ablated)
    ]
    overrides.sort(key=lambda override: (model.stage(override[0]), str(override[0])))
    return tuple(tuple(step) for _, step in groupby(overrides, key=lambda override: model.stage(override[0])))


def _shared(model: _Order, paths: Sequence[Path]) -> list[Path]:
    """Find beginnings that several overrides share and that are worth their own rows.

    A beginning costs rows from its start to the top; each group that branches off it saves rows up to its own start.
    The longest are decided first, since a group that branches off a longer beginning branches off no shorter one.
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


def _events(model: _Order, groups: Sequence[RowGroup]) -> dict[Component, SublayerEvents]:
    """List what happens at each sublayer."""
    events = {home: SublayerEvents() for home in (*model.sublayers, *model.dictionaries)}
    at_stage = defaultdict(list)
    for sublayer in model.sublayers:
        at_stage[model.stage(sublayer)].append(sublayer)
    for number, group in enumerate(groups):
        for component, frozen in group.own:
            events[component.sublayer].writes.setdefault(component, []).append((number, frozen))
        started = {component for component, _ in group.own if model.stage(component) == group.start}
        for sublayer in at_stage[group.start]:
            here = [component for component in started if component.sublayer == sublayer]
            inside = any(component.entry == "units" for component in here)
            kind = "at_units" if inside else "at_output" if here else "elsewhere"
            if any(component.entry == "block" for component in started):
                kind = "at_inputs"
            if kind != "at_inputs" or sublayer.kind == "attn":
                getattr(events[sublayer], kind).append(number)
    return events
