"""The causal order of components: stages, and what is downstream of an ablation (Eq. 33)."""

from collections.abc import Sequence
from typing import cast

from hydrascope.components.component import SUBLAYER_KINDS, Component, Override, SublayerKind
from hydrascope.components.model_shape import ModelShape


def stage(component: Component, *, parallel: bool) -> int:
    """Return the stage of a component; a component is downstream of all earlier stages (Eq. 33).

    The stage is 2·block for attention and 2·block + 1 for the MLP. In parallel blocks, where both read the same
    residual stream, it is the block for both. Units and terms have the stage of their sublayer, terms of the residual
    stream that of the attention that reads it.
    """
    if parallel:
        return component.block
    kind = component.sublayer.kind
    return 2 * component.block + (0 if kind == "stream" else SUBLAYER_KINDS.index(cast(SublayerKind, kind)))


def follows(model: ModelShape, component: Component, ablated: Component) -> bool:
    """Return whether a component is downstream of an ablated one.

    Terms of a dictionary are downstream of the units of their sublayer, and not of each other. The features and bias of
    a transcoder read the MLP's input, so only its error is downstream of the neurons.
    """
    if model.stage(component) != model.stage(ablated):
        return model.stage(component) > model.stage(ablated)
    if ablated.place == "stream":
        return component.place != "stream"
    of_input = component.place == "transcoder" and component.kind != "error"
    same = component.sublayer == ablated.sublayer
    return same and component.is_term and not of_input and (ablated.is_unit or ablated.is_input)


def responding(model: ModelShape, override: Override, components: Sequence[Component]) -> tuple[Component, ...]:
    """Return the `components` that can respond to an override (`downstream`)."""
    responds = downstream(model, override, components)
    return tuple(component for component, yes in zip(components, responds, strict=True) if yes)


def downstream(model: ModelShape, override: Override, components: Sequence[Component]) -> list[bool]:
    """Return whether each component is downstream of an ablation and can respond (Eq. 33).

    An overridden component can't respond, and neither does a sublayer that holds an ablated unit or term.

        >>> attn, mlp = model.sublayers[:2]
        >>> downstream(model, Override((attn,)), [attn, mlp])
        [False, True]
    """
    holders = {each for component in override.ablated for each in (component.sublayer, component.site)}
    overridden = set(override.overridden)

    def responds(component: Component) -> bool:
        own = {component, component.sublayer, component.site, component.head if component.is_input else component}
        free = overridden.isdisjoint(own) and component not in holders
        return free and any(follows(model, component, ablated) for ablated in override.ablated)

    return [responds(component) for component in components]
