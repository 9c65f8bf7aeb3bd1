"""Turn selections of components, such as "heads.9,mlp", into overrides."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain
from typing import Any, cast

from hydrascope.components.component import (
    _SYNTAX,
    INPUT_KINDS,
    SUBLAYER_KINDS,
    SUBLAYER_OF,
    TERM_KINDS,
    Component,
    Kind,
    Override,
    UnitKind,
    is_number,
)
from hydrascope.components.model_shape import ModelShape
from hydrascope.components.order import follows
from hydrascope.components.other_names import parse_other_name
from hydrascope.utils.errors import HydrascopeError

#: One selection or several: labels, components, overrides.
Selection = str | Component | Override | Iterable[str | Component | Override]


def select_components(model: ModelShape, selection: Selection) -> tuple[Component, ...]:
    """Return the single components that `selection` names, each once, in the order given.

        >>> [str(component) for component in select_components(model, "head.1.3,attn.0")]
        ['head.1.3', 'attn.0']

    Raises:
        HydrascopeError: the selection names something unknown or missing in the model, or joins several components.
    """
    return tuple(
        component for override in select_overrides(model, selection) for component in _single(override).ablated
    )


def select_mediators(model: ModelShape, selection: Selection) -> tuple[Component, ...]:
    """Return the sublayers, heads and inputs of heads that `selection` names as mediators.

        >>> [str(component) for component in select_mediators(model, "attn.3,head.4.1,query.4.1")]
        ['attn.3', 'head.4.1', 'query.4.1']

    Raises:
        HydrascopeError: as `select_components`; or the selection names neurons or single features.
    """
    components = tuple(
        component for override in _parse_selection(model, selection) for component in _single(override).ablated
    )
    for component in components:
        if component.kind == "neuron":
            raise HydrascopeError(f"{component} can't be a mediator: give sublayers, heads, or inputs of heads")
        if component.kind == "feature" and component.unit >= 0:
            raise HydrascopeError(
                f"{component} can't be a mediator by itself: give all features together, {component.site}, or freeze "
                f"it in an override, as attn.0|{component}"
            )
    return components


def refuse_terms(components: Iterable[Component], reader: str) -> None:
    """Refuse terms of dictionaries where an analysis takes other components only.

    Raises:
        HydrascopeError: one of the components is a term; the message names the analysis, `reader`.
    """
    for component in components:
        if component.is_term:
            raise HydrascopeError(f"{component} is a term of a dictionary: {reader} takes sublayers, heads and neurons")


def _single(override: Override) -> Override:
    if len(override.overridden) > 1:
        raise HydrascopeError(f"{override} overrides several components: name them one by one")
    return override


def select_overrides(model: ModelShape, selection: Selection) -> tuple[Override, ...]:
    """Return the overrides that `selection` names, each once.

    A single component is ablated alone. Joint overrides are taken as written.

        >>> [str(override) for override in select_overrides(model, ["attn.5", "attn.3+mlp.5", "head.3.1|mlp.4"])]
        ['attn.5', 'attn.3+mlp.5', 'head.3.1|mlp.4']

    Raises:
        HydrascopeError: the selection names something unknown or missing in the model, overrides it twice, freezes it
            where nothing ablated reaches it, or ablates an input of a head.
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
    items = list(selection) if isinstance(selection, Iterable) and not isinstance(selection, str) else [selection]
    overrides = dict.fromkeys(chain.from_iterable(_parse_item(model, item) for item in items))
    if not overrides:
        raise HydrascopeError("nothing is selected: name at least one component, as layers, heads or attn.3")
    return tuple(overrides)


def _parse_item(model: ModelShape, selection: Any) -> list[Override]:
    if not isinstance(selection, str | Component | Override):
        raise HydrascopeError(
            f"{selection!r} is no component of a model: give labels such as 'heads' or 'attn.3', hs.Component or "
            "hs.Override"
        )
    if isinstance(selection, Override):
        return [_require_consistent(model, selection)]
    if isinstance(selection, Component):
        return [_require_consistent(model, Override((selection,)))]
    return [override for word in selection.split(",") for override in _parse_word(model, word.strip())]


def _parse_word(model: ModelShape, word: str) -> list[Override]:
    """Return the overrides that one word of a selection names."""
    groups = {"layers": SUBLAYER_KINDS, "attn": ("attn",), "mlp": ("mlp",)}
    if word in groups:
        return [Override((sublayer,)) for sublayer in model.sublayers if sublayer.kind in groups[word]]
    if word == "blocks":
        return [Override.parse(f"block.{each.block}") for each in model.sublayers if each.kind == "attn"]
    plural, dot, number = word.partition(".")
    start, dash, stop = number.partition("-")
    if dash and is_number(start) and is_number(stop) and int(start) <= int(stop):
        # Check the last block first, so that a range that goes too far is refused before it is made.
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
    if plural in ("features", "terms"):
        return _parse_terms(model, word, plural, number)
    inputs = {"queries": "query", "keys": "key", "values": "value"}
    if plural in inputs:
        heads = _parse_word(model, f"heads{dot}{number}")
        return [
            Override((Component(c.block, cast(Kind, inputs[plural]), c.unit),))
            for override in heads
            for c in override.ablated
        ]
    first = re.split(r"[+|]", word)[0]
    if plural in ("block", *SUBLAYER_KINDS, *SUBLAYER_OF, *INPUT_KINDS, *TERM_KINDS) or parse_other_name(first):
        return [_require_consistent(model, Override.parse(word))]
    raise HydrascopeError(
        f"{word!r} is no component of a model: write layers, attn, mlp, heads, neurons.L, or {_SYNTAX}"
    )


def _parse_terms(model: ModelShape, word: str, plural: str, site: str) -> list[Override]:
    """Return the overrides that `features.SITE`, `terms` or `terms.SITE` names."""
    counts = model.feature_counts
    sites = [site] if site else list(counts)
    if plural == "features" and not site:
        raise HydrascopeError(f"{word!r} is no component of a model: write features.SITE, as features.mlp.5")
    if not sites:
        raise HydrascopeError(_without_dictionary(model, word))
    overrides = []
    for each in sites:
        whole = Component.parse(f"feature.{each}")
        _require_component(model, whole)
        if plural == "features":
            overrides += [replace(whole, unit=unit) for unit in range(counts[each])]
        else:
            overrides += [replace(whole, kind=kind) for kind in TERM_KINDS]
    return [Override((component,)) for component in overrides]


def _require_consistent(model: ModelShape, override: Override) -> Override:
    """Return `override` if the model can be run with it.

    Raises:
        HydrascopeError: it ablates nothing, overrides a component twice, or freezes one that can't change.
    """
    if not override.ablated:
        raise HydrascopeError("an override ablates nothing: name at least one component to ablate")
    times = Counter(override.overridden)
    for component in override.overridden:
        _require_component(model, component)
        if times[component] > 1:
            raise HydrascopeError(f"{override} overrides {component} twice: name it once")
        if component.sublayer != component and component.sublayer in times:
            raise HydrascopeError(
                f"{override} overrides {component} and all of {component.sublayer}: choose one of them"
            )
        if component.kind == "feature" and component.unit >= 0 and component.site in times:
            raise HydrascopeError(f"{override} overrides {component} and all features there: choose one of them")
    if override.part:
        raise HydrascopeError(f"{override} is a part of an ablation: name the component alone, and ask for the split")
    for component in override.frozen:
        if not any(follows(model, component, ablated) for ablated in override.ablated):
            raise HydrascopeError(
                f"{override} freezes {component}, which isn't downstream of what is ablated: leave it out"
            )
    return override


def _require_component(model: ModelShape, component: Component) -> None:
    """Refuse a component that the model doesn't have."""
    if component.is_term:
        _require_term(model, component)
        return
    if component.sublayer not in model.sublayers:
        last = model.sublayers[-1].block
        raise HydrascopeError(f"{model.name} has no {component}: its blocks are 0 to {last}")
    unit = component.head if component.is_input else component
    if unit.sublayer != unit and unit not in (units := model.units(unit.sublayer)):
        raise HydrascopeError(f"{model.name} has no {component}: {component.sublayer} has {units[0]} to {units[-1]}")


def _require_term(model: ModelShape, component: Component) -> None:
    """Refuse a term of a dictionary that the model doesn't have."""
    site = f"{component.place}.{component.block}"
    if site not in model.feature_counts:
        raise HydrascopeError(_without_dictionary(model, str(component)))
    if component.unit >= (count := model.feature_counts[site]):
        raise HydrascopeError(
            f"{model.name} has no {component}: its dictionary at {site} has feature.{site}.0 to "
            f"feature.{site}.{count - 1}"
        )


def _without_dictionary(model: ModelShape, label: str) -> str:
    known = ", ".join(model.feature_counts)
    there = f"its dictionaries are at {known}" if known else "no dictionary is given"
    return f"{model.name} has no {label}: {there}; give one with --dictionary, or model.with_dictionaries"
