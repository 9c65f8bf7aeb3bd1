"""Experiments: lists of runs that answer a question together, once they are subtracted (`hydrascope.measures`).

    hs.sweep(model, prompts, ablate=hs.Mediation("attn", mediators="layers"))
    hs.sweep(model, prompts, ablate=hs.Interactions("heads"), out="pairs.zarr")

A result knows its experiment: its attributes say what was asked, and `Network` is what they need of the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, get_args

from hydrascope.components.component import INPUT_KINDS, Component, Override
from hydrascope.components.selection import (
    ModelShape,
    Selection,
    responding,
    select_components,
    select_mediators,
    select_overrides,
)
from hydrascope.utils.errors import HydrascopeError

#: The kinds of results: of runs asked for one by one, or of an experiment.
ResultKind = Literal["sweep", "mediation", "interactions"]

#: How results of an experiment are made, in words.
MADE_BY: dict[ResultKind, str] = {
    "mediation": "hydrascope mediate, or Mediation",
    "interactions": "hydrascope interact, or Interactions",
}


def result_kind(attributes: Mapping[Any, Any]) -> ResultKind:
    """Return the kind of a result with these attributes.

    Raises:
        HydrascopeError: it is of an experiment that isn't known here.
    """
    name: Any = attributes.get("experiment") or "sweep"
    if name not in get_args(ResultKind):
        raise HydrascopeError(f"the result is of an unknown experiment, {name!r}: open it with a later hydrascope")
    kind: ResultKind = name
    return kind


@dataclass(frozen=True)
class Mediated:
    """The runs that tell of one ablation who of its mediators restores what.

    Attributes:
        override: the ablation, all else free.
        all_frozen: everything downstream of it frozen.
        mediators_frozen: all mediators frozen.
        one_frozen: of each mediator that is downstream, the run in which it is frozen, all else free.
        one_free: of each, the run in which it is free, all else downstream frozen.
    """

    override: Override
    all_frozen: Override
    mediators_frozen: Override
    one_frozen: Mapping[Component, Override]
    one_free: Mapping[Component, Override]

    @classmethod
    def of(cls, model: ModelShape, override: Override, mediators: Sequence[Component]) -> "Mediated":
        """The runs of one ablation."""

        def frozen(chosen: Sequence[Component]) -> Override:
            return Override(override.ablated, tuple(chosen))

        components, every = responding(model, override, mediators), _can_react(model, override)
        whole = [
            component
            for component in components
            if not ({component.sublayer, component.head} - {component}) & {*components}
        ]
        return cls(
            override,
            frozen(every),
            frozen(whole),
            {component: frozen([component]) for component in components},
            {component: frozen(_others(model, component, every)) for component in components},
        )

    @property
    def overrides(self) -> tuple[Override, ...]:
        """All of them."""
        return (
            self.override,
            self.all_frozen,
            self.mediators_frozen,
            *self.one_frozen.values(),
            *self.one_free.values(),
        )


def _can_react(model: ModelShape, override: Override) -> list[Component]:
    """All that can react: the layers downstream, and the other heads of those that hold an ablated one."""
    first = min(map(model.stage, override.ablated))
    holding = {component.sublayer for component in override.ablated if model.stage(component) > first} - {
        *override.ablated
    }
    sublayers = responding(model, override, model.sublayers)
    return [
        *sublayers,
        *(head for sublayer in holding for head in model.units(sublayer) if head not in override.ablated),
    ]


def _others(model: ModelShape, component: Component, every: Sequence[Component]) -> list[Component]:
    """All of `every` but what `part` writes: of its own layer the other heads, of its own head the other inputs."""
    if component.sublayer == component:
        return [each for each in every if each != component]
    head = component.head
    rest = [each for each in every if each not in (component.sublayer, head)]
    rest += [other for other in model.units(component.sublayer) if component.sublayer in every and other != head]
    return rest + [
        Component(component.block, kind, component.unit)
        for kind in INPUT_KINDS
        if component.is_input and kind != component.kind
    ]


@dataclass(frozen=True)
class Mediation:
    """Who repairs: each ablation again with mediators frozen, one by one, all together, and all else but one.

    Read by `hydrascope.measures.mediation`.

    Attributes:
        ablate: what is ablated, one by one or together, nothing frozen.
        mediators: the layers, heads and inputs of heads (`query.9.6`, `keys.9`) whose reactions are asked for.
    """

    ablate: Selection = "attn"
    mediators: Selection = "layers"

    def each(self, model: ModelShape) -> list[Mediated]:
        """The runs, by what they ablate.

        Raises:
            HydrascopeError: a selection names what isn't there, freezes something, or names neurons as mediators.
        """
        overrides, components = select_overrides(model, self.ablate), select_mediators(model, self.mediators)
        for override in overrides:
            if override.frozen:
                raise HydrascopeError(
                    f"{override} freezes {override.frozen[0]}: name what is ablated only, mediators are frozen here"
                )
            neurons = [component for component in override.ablated if component.kind == "neuron"]
            if len({component.sublayer for component in override.ablated}) > 1 and neurons:
                raise HydrascopeError(
                    f"{override} ablates {neurons[0]} with other layers: its MLP can't be frozen in part"
                )
        return [Mediated.of(model, override, components) for override in overrides]

    def overrides(self, model: ModelShape) -> tuple[Override, ...]:
        """All runs, each once."""
        return tuple(dict.fromkeys(override for one in self.each(model) for override in one.overrides))

    def reads(self, model: ModelShape) -> tuple[Component, ...]:
        """The heads whose responses are read besides all layers'."""
        return tuple(component for component in select_mediators(model, self.mediators) if component.is_unit)

    def settings(self, model: ModelShape) -> dict[str, Any]:
        """What a result says of it."""
        return {
            "experiment": "mediation",
            "ablate": ",".join(str(one.override) for one in self.each(model)),
            "mediators": ",".join(map(str, select_mediators(model, self.mediators))),
        }


@dataclass(frozen=True)
class Interactions:
    """Who covers for whom: some parts ablated one by one and in pairs.

    Read by `hydrascope.measures.interactions`.

    Attributes:
        components: of which all pairs are ablated, but a layer together with a part of it.
    """

    components: Selection = "layers"

    def overrides(self, model: ModelShape) -> tuple[Override, ...]:
        """Each part, and each pair.

        Raises:
            HydrascopeError: the selection names what isn't there, or fewer than two parts.
        """
        components = select_components(model, self.components)
        if len(components) < 2:
            raise HydrascopeError(f"{components[0]} alone can't interact: name at least two parts")
        pairs = [(u, v) for u, v in combinations(components, 2) if u.sublayer != v and v.sublayer != u]
        return (*(Override((component,)) for component in components), *map(Override, pairs))

    def reads(self, model: ModelShape) -> tuple[Component, ...]:
        """Nothing besides all layers: interactions are of effects."""
        return ()

    def settings(self, model: ModelShape) -> dict[str, Any]:
        """What a result says of it."""
        return {"experiment": "interactions", "ablate": ",".join(map(str, select_components(model, self.components)))}


Experiment = Mediation | Interactions
