"""Selections of components: from labels to the overrides that are measured."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Protocol, cast

from hydrascope.components.component import (
    _SYNTAX,
    INPUT_KINDS,
    LAYER_KINDS,
    LAYER_OF,
    Component,
    Kind,
    Run,
    UnitKind,
    is_number,
)
from hydrascope.utils.errors import HydrascopeError


class Parts(Protocol):
    """What of a model selections need to know."""

    @property
    def name(self) -> str: ...

    @property
    def components(self) -> tuple[Component, ...]: ...

    def units(self, layer: Component) -> tuple[Component, ...]: ...

    def stage(self, component: Component) -> int: ...


#: One selection or several: labels, components, runs.
Selection = str | Component | Run | Iterable[str | Component | Run]


def selected(model: Parts, selection: Selection) -> tuple[Component, ...]:
    """The single components that `selection` names, each once, in the order given.

        >>> selected(model, "heads.9,mlp")                                   # doctest: +SKIP

    Raises:
        HydrascopeError: something in it is unknown, not in the model, or joins several components.
    """
    return tuple(part for run in selected_runs(model, selection) for part in _single(run).ablated)


def selected_mediators(model: Parts, selection: Selection) -> tuple[Component, ...]:
    """The layers, heads and inputs of heads that `selection` names: what can be frozen to see what it brings.

        >>> selected_mediators(model, "layers,head.9.6,query.9.6,values.9")  # doctest: +SKIP

    Raises:
        HydrascopeError: as `selected`; or it names neurons.
    """
    parts = tuple(part for run in _all_runs(model, selection) for part in _single(run).ablated)
    for part in parts:
        if part.kind == "neuron":
            raise HydrascopeError(f"{part} can't be a mediator: give layers, heads, or inputs of heads")
    return parts


def _single(run: Run) -> Run:
    if len(run.overridden) > 1:
        raise HydrascopeError(f"{run} is a run of several parts: name the parts one by one")
    return run


def selected_runs(model: Parts, selection: Selection) -> tuple[Run, ...]:
    """The runs that `selection` names: each component ablated alone, and joint runs as written; each once.

        >>> selected_runs(model, ["heads", "attn.5+mlp.7", "head.9.6|mlp.10"])   # doctest: +SKIP

    Raises:
        HydrascopeError: something in it is unknown, not in the model, overridden twice, or frozen where nothing that
            is ablated reaches it; or it is an input of a head, which can only be frozen.
    """
    runs = _all_runs(model, selection)
    for run in runs:
        for part in run.ablated:
            if part.is_input:
                raise HydrascopeError(f"{part} can only be frozen, as in attn.0|{part}: name a head to ablate or read")
    return runs


def _all_runs(model: Parts, selection: Selection) -> tuple[Run, ...]:
    given = list(selection) if isinstance(selection, Iterable) and not isinstance(selection, str) else [selection]
    runs = dict.fromkeys(chain.from_iterable(_runs(model, each) for each in given))
    if not runs:
        raise HydrascopeError("nothing is selected: name at least one part, as layers, heads or attn.3")
    return tuple(runs)


def _runs(model: Parts, selection: Any) -> list[Run]:
    if not isinstance(selection, str | Component | Run):
        raise HydrascopeError(
            f"{selection!r} is no part of a model: give labels such as 'heads' or 'attn.3', hs.Component or hs.Run"
        )
    if isinstance(selection, Run):
        return [_required(model, selection)]
    if isinstance(selection, Component):
        return [_required(model, Run((selection,)))]
    return [run for word in selection.split(",") for run in _word(model, word.strip())]


def _word(model: Parts, word: str) -> list[Run]:
    """The runs that one word of a selection names."""
    groups = {"layers": LAYER_KINDS, "attn": ("attn",), "mlp": ("mlp",)}
    if word in groups:
        return [Run((layer,)) for layer in model.components if layer.kind in groups[word]]
    plural, dot, number = word.partition(".")
    start, dash, stop = number.partition("-")
    if dash and is_number(start) and is_number(stop) and int(start) <= int(stop):
        # The last first: a range that goes too far is refused before it is made.
        _word(model, f"{plural}.{int(stop)}")
        return [run for layer in range(int(start), int(stop) + 1) for run in _word(model, f"{plural}.{layer}")]
    if plural in ("heads", "neurons") and (is_number(number) or not dot):
        kind = LAYER_OF[cast(UnitKind, plural.removesuffix("s"))]
        if not dot:
            layers = [layer for layer in model.components if layer.kind == kind]
        else:
            layers = [Component(int(number), kind)]
            _require_part(model, layers[0])
        return [Run((unit,)) for layer in layers for unit in model.units(layer)]
    inputs = {"queries": "query", "keys": "key", "values": "value"}
    if plural in inputs:
        heads = _word(model, f"heads{dot}{number}")
        return [Run((Component(c.layer, cast(Kind, inputs[plural]), c.unit),)) for run in heads for c in run.ablated]
    if plural in (*LAYER_KINDS, *LAYER_OF, *INPUT_KINDS):
        return [_required(model, Run.parse(word))]
    raise HydrascopeError(f"{word!r} is no part of a model: write layers, attn, mlp, heads, neurons.L, or {_SYNTAX}")


def _required(model: Parts, run: Run) -> Run:
    """`run`, if the model can be run so."""
    if not run.ablated:
        raise HydrascopeError("a run ablates nothing: name at least one part that it ablates")
    times = Counter(run.overridden)
    for component in run.overridden:
        _require_part(model, component)
        if times[component] > 1:
            raise HydrascopeError(f"{run} overrides {component} twice: name it once")
        if component.whole != component and component.whole in times:
            raise HydrascopeError(f"{run} overrides {component} and the whole of {component.whole}: choose one of them")
    first = min(map(model.stage, run.ablated))
    for component in run.frozen:
        if model.stage(component) <= first:
            raise HydrascopeError(f"{run} freezes {component}, which nothing that it ablates reaches: leave it out")
    return run


def _require_part(model: Parts, component: Component) -> None:
    """Refuse what the model doesn't have."""
    if component.whole not in model.components:
        last = model.components[-1].layer
        raise HydrascopeError(f"{model.name} has no {component}: its layers are 0 to {last}")
    part = component.head if component.is_input else component
    if part.whole != part and part not in (units := model.units(part.whole)):
        raise HydrascopeError(f"{model.name} has no {component}: {component.whole} has {units[0]} to {units[-1]}")


def answering(model: Parts, run: Run, components: Sequence[Component]) -> tuple[Component, ...]:
    """Those of `components` that are `downstream` of what `run` ablates, and can respond to it."""
    return tuple(part for part, yes in zip(components, downstream(model, run, components), strict=True) if yes)


def downstream(model: Parts, run: Run, components: Sequence[Component]) -> list[bool]:
    """Which of `components` are causally downstream of what `run` ablates, and can respond to it (Eq. 33).

    What the run itself overrides doesn't respond, nor does a layer count of which it ablates a part.
    """
    first = min(map(model.stage, run.ablated))
    changed, held = {component.whole for component in run.ablated}, set(run.overridden)

    def responds(component: Component) -> bool:
        own = {component, component.whole, component.head if component.is_input else component}
        overridden = not held.isdisjoint(own)
        return model.stage(component) > first and not overridden and component not in changed

    return [responds(component) for component in components]
