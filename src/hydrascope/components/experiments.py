"""Experiments: lists of overrides that answer one question together (`hydrascope.measures`).

    hs.sweep(model, prompts, ablate=hs.Mediation("attn", mediators="layers"))
    hs.sweep(model, prompts, ablate=hs.Interactions("heads"), out="pairs.zarr")

The attributes of a result describe its experiment. With `Network` they give its overrides again, without the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import isfinite
from typing import Any, Literal, get_args

from hydrascope.components.component import INPUT_KINDS, TERM_KINDS, Component, Override
from hydrascope.components.model_shape import ModelShape
from hydrascope.components.order import responding
from hydrascope.components.part import Part, PartKind
from hydrascope.components.selection import Selection, select_components, select_mediators, select_overrides
from hydrascope.utils.errors import HydrascopeError

#: The kinds of results: of a plain sweep, or of an experiment.
ResultKind = Literal["sweep", "mediation", "interactions", "split"]

#: The two parts that a readout splits a change into.
SPLIT: tuple[PartKind, ...] = ("readout", "content")

#: The command and the class that make the results of an experiment.
MADE_BY: dict[ResultKind, str] = {
    "mediation": "hydrascope mediate, or Mediation",
    "interactions": "hydrascope interact, or Interactions",
    "split": "hydrascope run --split, or Split",
}


def result_kind(attributes: Mapping[Any, Any]) -> ResultKind:
    """Return the kind of a result with these attributes.

        >>> result_kind(results.attrs)
        'sweep'

    Raises:
        HydrascopeError: the experiment is unknown to this version.
    """
    name: Any = attributes.get("experiment") or "sweep"
    if name not in get_args(ResultKind):
        raise HydrascopeError(f"the result is of an unknown experiment, {name!r}: open it with a later hydrascope")
    kind: ResultKind = name
    return kind


@dataclass(frozen=True)
class Mediated:
    """The overrides that show how much each mediator of one ablation restores.

    Attributes:
        override: the ablation, with nothing frozen.
        all_frozen: the ablation with everything downstream frozen.
        mediators_frozen: the ablation with all mediators frozen.
        one_frozen: for each downstream mediator, the ablation with only this mediator frozen.
        one_free: for each downstream mediator, the ablation with everything downstream frozen but this mediator.
    """

    override: Override
    all_frozen: Override
    mediators_frozen: Override
    one_frozen: Mapping[Component, Override]
    one_free: Mapping[Component, Override]

    @classmethod
    def of(cls, model: ModelShape, override: Override, mediators: Sequence[Component]) -> "Mediated":
        """Return the overrides of one ablation."""

        def frozen(frozen_components: Sequence[Component]) -> Override:
            return Override(override.ablated, tuple(frozen_components))

        own = override.at_sublayers.ablated
        # Terms of an ablated unit's own sublayer are what the unit writes, not mediators of it.
        others = [component for component in mediators if not (component.is_term and component.sublayer in own)]
        components, every = responding(model, override, others), _can_react(model, override)
        whole = [
            component
            for component in components
            if not ({component.sublayer, component.site, component.head} - {component}) & {*components}
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
        """All overrides; some may be equal."""
        return (
            self.override,
            self.all_frozen,
            self.mediators_frozen,
            *self.one_frozen.values(),
            *self.one_free.values(),
        )


def _can_react(model: ModelShape, override: Override) -> list[Component]:
    """Return all that can react: downstream sublayers, and free heads beside later ablated ones."""
    first = min(map(model.stage, override.ablated))
    later_sublayers = {component.sublayer for component in override.ablated if model.stage(component) > first}
    partly_ablated = later_sublayers - {*override.ablated}
    sublayers = responding(model, override, model.sublayers)
    return [
        *sublayers,
        *(head for sublayer in partly_ablated for head in model.units(sublayer) if head not in override.ablated),
    ]


def _others(model: ModelShape, component: Component, every: Sequence[Component]) -> list[Component]:
    """Return the components of `every` to freeze so that only `component` reacts.

    The sublayer of a head is replaced by its other heads, the head of an input by its other inputs, and the sublayer of
    a term by the dictionary's other terms.
    """
    if component.sublayer == component:
        return [each for each in every if each != component]
    if component.is_term:
        terms = [Component(component.block, kind, place=component.place) for kind in TERM_KINDS]
        return [each for each in every if each != component.sublayer] + [each for each in terms if each != component]
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
    """Mediators of repair: each ablation again with mediators frozen in turn.

    Mediators are frozen one by one, all together, and all but one. `hydrascope.measures.mediation` reads the result.

        >>> experiment = hs.Mediation("attn.3", mediators="head.4.1,mlp.5")
        >>> hs.sweep(model, prompts, hs.Zero(), ablate=experiment).attrs["experiment"]
        'mediation'

    Attributes:
        ablate: the components to ablate, one by one or together, with nothing frozen.
        mediators: the sublayers, heads and inputs of heads (`query.9.6`, `keys.9`) to freeze.
    """

    ablate: Selection = "attn"
    mediators: Selection = "layers"

    def each(self, model: ModelShape) -> list[Mediated]:
        """Return the overrides of each ablation.

        Raises:
            HydrascopeError: a selection names a missing component, freezes something, or names neurons as mediators.
        """
        overrides, components = select_overrides(model, self.ablate), select_mediators(model, self.mediators)
        for override in overrides:
            if override.frozen:
                raise HydrascopeError(
                    f"{override} freezes {override.frozen[0]}: name only what is ablated; this experiment freezes the "
                    "mediators"
                )
            small = [component for component in override.ablated if component.kind == "neuron" or component.is_term]
            if len({component.sublayer for component in override.ablated}) > 1 and small:
                raise HydrascopeError(
                    f"{override} ablates {small[0]} and another sublayer: the rest of {small[0].sublayer} can't be "
                    "frozen; ablate them one by one"
                )
        return [Mediated.of(model, override, components) for override in overrides]

    def overrides(self, model: ModelShape) -> tuple[Override, ...]:
        """Return all overrides, each once."""
        return tuple(dict.fromkeys(override for mediated in self.each(model) for override in mediated.overrides))

    def reads(self, model: ModelShape) -> tuple[Component, ...]:
        """Return the heads and terms that are read besides all sublayers."""
        return tuple(
            component for component in select_mediators(model, self.mediators) if component.is_unit or component.is_term
        )

    def settings(self, model: ModelShape) -> dict[str, Any]:
        """Return the attributes that describe the experiment in a result."""
        return {
            "experiment": "mediation",
            "ablate": ",".join(str(mediated.override) for mediated in self.each(model)),
            "mediators": ",".join(map(str, select_mediators(model, self.mediators))),
        }


@dataclass(frozen=True)
class Interactions:
    """Pairwise interactions: some components ablated one by one and in pairs.

    `hydrascope.measures.interactions` reads the result.

        >>> results = hs.sweep(model, prompts, hs.Zero(), ablate=hs.Interactions("attn.3,head.4.1"))
        >>> results["ablated"].values.tolist()
        ['attn.3', 'head.4.1', 'attn.3+head.4.1']

    Attributes:
        components: the components to ablate. A sublayer is not paired with its own units.
    """

    components: Selection = "layers"

    def overrides(self, model: ModelShape) -> tuple[Override, ...]:
        """Return an override for each component and for each pair.

        Raises:
            HydrascopeError: the selection names a missing component, or fewer than two components.
        """
        components = select_components(model, self.components)
        if len(components) < 2:
            raise HydrascopeError(f"{components[0]} alone can't interact: name at least two components")
        pairs = [
            (u, v)
            for u, v in combinations(components, 2)
            if not {u.sublayer, u.site} & {v} and not {v.sublayer, v.site} & {u}
        ]
        return (*(Override((component,)) for component in components), *map(Override, pairs))

    def reads(self, model: ModelShape) -> tuple[Component, ...]:
        """Return no component besides all sublayers."""
        return ()

    def settings(self, model: ModelShape) -> dict[str, Any]:
        """Return the attributes that describe the experiment in a result."""
        return {"experiment": "interactions", "ablate": ",".join(map(str, select_components(model, self.components)))}


@dataclass(frozen=True)
class Split:
    """The split of ablations: each again with parts of the change that it makes.

    δ is the change of what a component writes at the last position. Its *readout part* is its projection on a
    readout's direction, its *content* the rest. Each part is written alone, with every readout of the run; so are
    multiples of δ, among them the opposite change (*boost*). `hydrascope.measures.split` reads the result.

        >>> results = hs.sweep(model, prompts, hs.Zero(), ablate=hs.Split("attn.3"))
        >>> results["ablated"].values.tolist()
        ['attn.3', 'attn.3:readout(logit)', 'attn.3:content(logit)', 'attn.3:boost']

    Attributes:
        ablate: the components to ablate, one by one or together.
        doses: multiples of δ; −1 is the boost.
    """

    ablate: Selection = "layers"
    doses: tuple[float, ...] = (-1.0,)

    def overrides(self, model: ModelShape, readouts: Sequence[str]) -> tuple[Override, ...]:
        """Return the ablations, then each with every part.

        Parts are in an order in which neighbours can be measured together: a sublayer writes one part at a time.

        Args:
            model: the model.
            readouts: the labels of the run's readouts.

        Raises:
            HydrascopeError: the selection names a missing component or freezes something, or a dose isn't finite.
        """
        whole = select_overrides(model, self.ablate)
        for override in whole:
            if override.frozen:
                raise HydrascopeError(f"{override} freezes {override.frozen[0]}: name only what is ablated")
            for component in override.ablated:
                if component.place == "stream":
                    raise HydrascopeError(f"{component} is no part of a sublayer's write: a split is of sublayers")
        for dose in self.doses:
            if isinstance(dose, bool) or not isinstance(dose, int | float) or not isfinite(dose):
                raise HydrascopeError(f"{dose!r} is no dose: give numbers")
        parts = [Part(kind, readout) for readout in readouts for kind in SPLIT]
        parts += [Part("dose", dose=float(dose)) for dose in dict.fromkeys(self.doses)]
        ordered = [override for together in _disjoint(whole) for override in together]
        return (*whole, *(replace(override, part=part) for part in parts for override in ordered))

    def reads(self, model: ModelShape) -> tuple[Component, ...]:
        """Return no component besides all sublayers."""
        return ()

    def settings(self, model: ModelShape) -> dict[str, Any]:
        """Return the attributes that describe the experiment in a result."""
        ablated = ",".join(map(str, select_overrides(model, self.ablate)))
        return {"experiment": "split", "ablate": ablated, "doses": ",".join(f"{dose:g}" for dose in self.doses)}


def _disjoint(overrides: Sequence[Override]) -> list[list[Override]]:
    """Group overrides so that no two of a group override the same sublayer."""
    groups: list[tuple[set[Component], list[Override]]] = []
    for override in overrides:
        sublayers = set(override.at_sublayers.ablated)
        taken, group = next((each for each in groups if not each[0] & sublayers), (set(), []))
        if not group:
            groups.append((taken, group))
        taken |= sublayers
        group.append(override)
    return [group for _, group in groups]


Experiment = Mediation | Interactions | Split
