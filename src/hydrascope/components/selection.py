"""Selections of components: from labels to the overrides that are measured."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Protocol, cast

from hydrascope.components.component import (
    _SYNTAX,
    INPUT_KINDS,
    SUBLAYER_KINDS,
    SUBLAYER_OF,
    Component,
    Kind,
    Override,
    UnitKind,
    is_number,
)
from hydrascope.utils.errors import HydrascopeError


class ModelShape(Protocol):
    """What of a model selections need to know."""

    @property
    def name(self) -> str: ...

    @property
    def sublayers(self) -> tuple[Component, ...]: ...

    def units(self, sublayer: Component) -> tuple[Component, ...]: ...

    def stage(self, component: Component) -> int: ...


#: One selection or several: labels, components, runs.
Selection = str | Component | Override | Iterable[str | Component | Override]


def select_components(model: ModelShape, selection: Selection) -> tuple[Component, ...]:
    """The single components that `selection` names, each once, in the order given.

        >>> selected(model, "heads.9,mlp")                                   # doctest: +SKIP

    Raises:
        HydrascopeError: something in it is unknown, not in the model, or joins several components.
    """
    return tuple(
        component for override in select_overrides(model, selection) for component in _single(override).ablated
    )


def select_mediators(model: ModelShape, selection: Selection) -> tuple[Component, ...]:
    """The layers, heads and inputs of heads that `selection` names: what can be frozen to see what it brings.

        >>> selected_mediators(model, "layers,head.9.6,query.9.6,values.9")  # doctest: +SKIP

    Raises:
        HydrascopeError: as `selected`; or it names neurons.
    """
    components = tuple(
        component for override in _parse_selection(model, selection) for component in _single(override).ablated
    )
    for component in components:
        if component.kind == "neuron":
            raise HydrascopeError(f"{component} can't be a mediator: give layers, heads, or inputs of heads")
    return components


def _single(override: Override) -> Override:
    if len(override.overridden) > 1:
        raise HydrascopeError(f"{override} is a run of several parts: name the parts one by one")
    return override


def select_overrides(model: ModelShape, selection: Selection) -> tuple[Override, ...]:
    """The runs that `selection` names: each component ablated alone, and joint runs as written; each once.

        >>> selected_runs(model, ["heads", "attn.5+mlp.7", "head.9.6|mlp.10"])   # doctest: +SKIP

    Raises:
        HydrascopeError: something in it is unknown, not in the model, overridden twice, or frozen where nothing that
            is ablated reaches it; or it is an input of a head, which can only be frozen.
    """
    overrides = _parse_selection(model, selection)
    for override in overrides:
        for component in override.ablated:
            if component.is_input:
                raise HydrascopeError(
                    f"{component} can only be frozen, as in attn.0|{component}: name a head to ablate or read"
                )
    return overrides


def _parse_selection(model: ModelShape, selection: Selection) -> tuple[Override, ...]:
    given = list(selection) if isinstance(selection, Iterable) and not isinstance(selection, str) else [selection]
    overrides = dict.fromkeys(chain.from_iterable(_parse_item(model, each) for each in given))
    if not overrides:
        raise HydrascopeError("nothing is selected: name at least one part, as layers, heads or attn.3")
    return tuple(overrides)


def _parse_item(model: ModelShape, selection: Any) -> list[Override]:
    if not isinstance(selection, str | Component | Override):
        raise HydrascopeError(
            f"{selection!r} is no part of a model: give labels such as 'heads' or 'attn.3', hs.Component or hs.Override"
        )
    if isinstance(selection, Override):
        return [_require_consistent(model, selection)]
    if isinstance(selection, Component):
        return [_require_consistent(model, Override((selection,)))]
    return [override for word in selection.split(",") for override in _parse_word(model, word.strip())]


def _parse_word(model: ModelShape, word: str) -> list[Override]:
    """The runs that one word of a selection names."""
    groups = {"layers": SUBLAYER_KINDS, "attn": ("attn",), "mlp": ("mlp",)}
    if word in groups:
        return [Override((sublayer,)) for sublayer in model.sublayers if sublayer.kind in groups[word]]
    plural, dot, number = word.partition(".")
    start, dash, stop = number.partition("-")
    if dash and is_number(start) and is_number(stop) and int(start) <= int(stop):
        # The last first: a range that goes too far is refused before it is made.
        _parse_word(model, f"{plural}.{int(stop)}")
        return [
            override
            for block in range(int(start), int(stop) + 1)
            for override in _parse_word(model, f"{plural}.{block}")
        ]
    if plural in ("heads", "neurons") and (is_number(number) or not dot):
        kind = SUBLAYER_OF[cast(UnitKind, plural.removesuffix("s"))]
        if not dot:
            sublayers = [sublayer for sublayer in model.sublayers if sublayer.kind == kind]
        else:
            sublayers = [Component(int(number), kind)]
            _require_component(model, sublayers[0])
        return [Override((unit,)) for sublayer in sublayers for unit in model.units(sublayer)]
    inputs = {"queries": "query", "keys": "key", "values": "value"}
    if plural in inputs:
        heads = _parse_word(model, f"heads{dot}{number}")
        return [
            Override((Component(c.block, cast(Kind, inputs[plural]), c.unit),))
            for override in heads
            for c in override.ablated
        ]
    if plural in (*SUBLAYER_KINDS, *SUBLAYER_OF, *INPUT_KINDS):
        return [_require_consistent(model, Override.parse(word))]
    raise HydrascopeError(f"{word!r} is no part of a model: write layers, attn, mlp, heads, neurons.L, or {_SYNTAX}")


def _require_consistent(model: ModelShape, override: Override) -> Override:
    """`run`, if the model can be run so."""
    if not override.ablated:
        raise HydrascopeError("a run ablates nothing: name at least one part that it ablates")
    times = Counter(override.overridden)
    for component in override.overridden:
        _require_component(model, component)
        if times[component] > 1:
            raise HydrascopeError(f"{override} overrides {component} twice: name it once")
        if component.sublayer != component and component.sublayer in times:
            raise HydrascopeError(
                f"{override} overrides {component} and the whole of {component.sublayer}: choose one of them"
            )
    first = min(map(model.stage, override.ablated))
    for component in override.frozen:
        if model.stage(component) <= first:
            raise HydrascopeError(
                f"{override} freezes {component}, which nothing that it ablates reaches: leave it out"
            )
    return override


def _require_component(model: ModelShape, component: Component) -> None:
    """Refuse what the model doesn't have."""
    if component.sublayer not in model.sublayers:
        last = model.sublayers[-1].block
        raise HydrascopeError(f"{model.name} has no {component}: its layers are 0 to {last}")
    part = component.head if component.is_input else component
    if part.sublayer != part and part not in (units := model.units(part.sublayer)):
        raise HydrascopeError(f"{model.name} has no {component}: {component.sublayer} has {units[0]} to {units[-1]}")


def responding(model: ModelShape, override: Override, components: Sequence[Component]) -> tuple[Component, ...]:
    """Those of `components` that are `downstream` of what `run` ablates, and can respond to it."""
    return tuple(
        component for component, yes in zip(components, downstream(model, override, components), strict=True) if yes
    )


def downstream(model: ModelShape, override: Override, components: Sequence[Component]) -> list[bool]:
    """Which of `components` are causally downstream of what `run` ablates, and can respond to it (Eq. 33).

    What the run itself overrides doesn't respond, nor does a layer count of which it ablates a part.
    """
    first = min(map(model.stage, override.ablated))
    changed, held = {component.sublayer for component in override.ablated}, set(override.overridden)

    def responds(component: Component) -> bool:
        own = {component, component.sublayer, component.head if component.is_input else component}
        overridden = not held.isdisjoint(own)
        return model.stage(component) > first and not overridden and component not in changed

    return [responds(component) for component in components]
