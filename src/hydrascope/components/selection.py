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

    def units(self, layer: Component) -> tuple[Component, ...]: ...

    def stage(self, component: Component) -> int: ...


#: One selection or several: labels, components, runs.
Selection = str | Component | Override | Iterable[str | Component | Override]


def select_components(model: ModelShape, selection: Selection) -> tuple[Component, ...]:
    """The single components that `selection` names, each once, in the order given.

        >>> selected(model, "heads.9,mlp")                                   # doctest: +SKIP

    Raises:
        HydrascopeError: something in it is unknown, not in the model, or joins several components.
    """
    return tuple(part for run in select_overrides(model, selection) for part in _single(run).ablated)


def select_mediators(model: ModelShape, selection: Selection) -> tuple[Component, ...]:
    """The layers, heads and inputs of heads that `selection` names: what can be frozen to see what it brings.

        >>> selected_mediators(model, "layers,head.9.6,query.9.6,values.9")  # doctest: +SKIP

    Raises:
        HydrascopeError: as `selected`; or it names neurons.
    """
    parts = tuple(part for run in _parse_selection(model, selection) for part in _single(run).ablated)
    for part in parts:
        if part.kind == "neuron":
            raise HydrascopeError(f"{part} can't be a mediator: give layers, heads, or inputs of heads")
    return parts


def _single(run: Override) -> Override:
    if len(run.overridden) > 1:
        raise HydrascopeError(f"{run} is a run of several parts: name the parts one by one")
    return run


def select_overrides(model: ModelShape, selection: Selection) -> tuple[Override, ...]:
    """The runs that `selection` names: each component ablated alone, and joint runs as written; each once.

        >>> selected_runs(model, ["heads", "attn.5+mlp.7", "head.9.6|mlp.10"])   # doctest: +SKIP

    Raises:
        HydrascopeError: something in it is unknown, not in the model, overridden twice, or frozen where nothing that
            is ablated reaches it; or it is an input of a head, which can only be frozen.
    """
    runs = _parse_selection(model, selection)
    for run in runs:
        for part in run.ablated:
            if part.is_input:
                raise HydrascopeError(f"{part} can only be frozen, as in attn.0|{part}: name a head to ablate or read")
    return runs


def _parse_selection(model: ModelShape, selection: Selection) -> tuple[Override, ...]:
    given = list(selection) if isinstance(selection, Iterable) and not isinstance(selection, str) else [selection]
    runs = dict.fromkeys(chain.from_iterable(_parse_item(model, each) for each in given))
    if not runs:
        raise HydrascopeError("nothing is selected: name at least one part, as layers, heads or attn.3")
    return tuple(runs)


def _parse_item(model: ModelShape, selection: Any) -> list[Override]:
    if not isinstance(selection, str | Component | Override):
        raise HydrascopeError(
            f"{selection!r} is no part of a model: give labels such as 'heads' or 'attn.3', hs.Component or hs.Run"
        )
    if isinstance(selection, Override):
        return [_require_consistent(model, selection)]
    if isinstance(selection, Component):
        return [_require_consistent(model, Override((selection,)))]
    return [run for word in selection.split(",") for run in _parse_word(model, word.strip())]


def _parse_word(model: ModelShape, word: str) -> list[Override]:
    """The runs that one word of a selection names."""
    groups = {"layers": SUBLAYER_KINDS, "attn": ("attn",), "mlp": ("mlp",)}
    if word in groups:
        return [Override((layer,)) for layer in model.sublayers if layer.kind in groups[word]]
    plural, dot, number = word.partition(".")
    start, dash, stop = number.partition("-")
    if dash and is_number(start) and is_number(stop) and int(start) <= int(stop):
        # The last first: a range that goes too far is refused before it is made.
        _parse_word(model, f"{plural}.{int(stop)}")
        return [run for layer in range(int(start), int(stop) + 1) for run in _parse_word(model, f"{plural}.{layer}")]
    if plural in ("heads", "neurons") and (is_number(number) or not dot):
        kind = SUBLAYER_OF[cast(UnitKind, plural.removesuffix("s"))]
        if not dot:
            layers = [layer for layer in model.sublayers if layer.kind == kind]
        else:
            layers = [Component(int(number), kind)]
            _require_component(model, layers[0])
        return [Override((unit,)) for layer in layers for unit in model.units(layer)]
    inputs = {"queries": "query", "keys": "key", "values": "value"}
    if plural in inputs:
        heads = _parse_word(model, f"heads{dot}{number}")
        return [
            Override((Component(c.block, cast(Kind, inputs[plural]), c.unit),)) for run in heads for c in run.ablated
        ]
    if plural in (*SUBLAYER_KINDS, *SUBLAYER_OF, *INPUT_KINDS):
        return [_require_consistent(model, Override.parse(word))]
    raise HydrascopeError(f"{word!r} is no part of a model: write layers, attn, mlp, heads, neurons.L, or {_SYNTAX}")


def _require_consistent(model: ModelShape, run: Override) -> Override:
    """`run`, if the model can be run so."""
    if not run.ablated:
        raise HydrascopeError("a run ablates nothing: name at least one part that it ablates")
    times = Counter(run.overridden)
    for component in run.overridden:
        _require_component(model, component)
        if times[component] > 1:
            raise HydrascopeError(f"{run} overrides {component} twice: name it once")
        if component.sublayer != component and component.sublayer in times:
            raise HydrascopeError(
                f"{run} overrides {component} and the whole of {component.sublayer}: choose one of them"
            )
    first = min(map(model.stage, run.ablated))
    for component in run.frozen:
        if model.stage(component) <= first:
            raise HydrascopeError(f"{run} freezes {component}, which nothing that it ablates reaches: leave it out")
    return run


def _require_component(model: ModelShape, component: Component) -> None:
    """Refuse what the model doesn't have."""
    if component.sublayer not in model.sublayers:
        last = model.sublayers[-1].block
        raise HydrascopeError(f"{model.name} has no {component}: its layers are 0 to {last}")
    part = component.head if component.is_input else component
    if part.sublayer != part and part not in (units := model.units(part.sublayer)):
        raise HydrascopeError(f"{model.name} has no {component}: {component.sublayer} has {units[0]} to {units[-1]}")


def responding(model: ModelShape, run: Override, components: Sequence[Component]) -> tuple[Component, ...]:
    """Those of `components` that are `downstream` of what `run` ablates, and can respond to it."""
    return tuple(part for part, yes in zip(components, downstream(model, run, components), strict=True) if yes)


def downstream(model: ModelShape, run: Override, components: Sequence[Component]) -> list[bool]:
    """Which of `components` are causally downstream of what `run` ablates, and can respond to it (Eq. 33).

    What the run itself overrides doesn't respond, nor does a layer count of which it ablates a part.
    """
    first = min(map(model.stage, run.ablated))
    changed, held = {component.sublayer for component in run.ablated}, set(run.overridden)

    def responds(component: Component) -> bool:
        own = {component, component.sublayer, component.head if component.is_input else component}
        overridden = not held.isdisjoint(own)
        return model.stage(component) > first and not overridden and component not in changed

    return [responds(component) for component in components]
