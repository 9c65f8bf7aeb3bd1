"""The causal order of components: stages, and what is downstream of an ablation (Eq. 33)."""

from collections.abc import Sequence
from typing import cast

from hydrascope.components.component import SUBLAYER_KINDS, Component, Override, SublayerKind
from hydrascope.components.selection import ModelShape


def stage(component: Component, *, parallel: bool) -> int:
    """Return the stage of a component; a component is downstream of all earlier stages (Eq. 33).

    The stage is 2·block for attention and 2·block + 1 for the MLP. In parallel blocks, where both read the same
    residual stream, it is the block for both.
    """
    return (
        component.block
        if parallel
        else 2 * component.block + SUBLAYER_KINDS.index(cast(SublayerKind, component.sublayer.kind))
    )


def responding(model: ModelShape, override: Override, components: Sequence[Component]) -> tuple[Component, ...]:
    """Return the `components` that can respond to an override (`downstream`)."""
    responds = downstream(model, override, components)
    return tuple(component for component, yes in zip(components, responds, strict=True) if yes)


def downstream(model: ModelShape, override: Override, components: Sequence[Component]) -> list[bool]:
    """Return whether each component is downstream of an ablation and can respond (Eq. 33).

    An overridden component can't respond, and neither does a sublayer that holds an ablated unit.

        >>> attn, mlp = model.sublayers[:2]
        >>> downstream(model, Override((attn,)), [attn, mlp])
        [False, True]
    """
    first = min(map(model.stage, override.ablated))
    ablated_sublayers = {component.sublayer for component in override.ablated}
    overridden = set(override.overridden)

    def responds(component: Component) -> bool:
        own = {component, component.sublayer, component.head if component.is_input else component}
        free = overridden.isdisjoint(own) and component not in ablated_sublayers
        return model.stage(component) > first and free

    return [responds(component) for component in components]
