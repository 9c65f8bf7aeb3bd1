"""The causal order of components: stages, and what is downstream of an ablation (Eq. 33)."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import cast

import numpy as np
from jaxtyping import Bool

from hydrascope.components.component import SUBLAYER_KINDS, Component, Override, SublayerKind
from hydrascope.components.model_shape import CausalOrder, ModelShape


@lru_cache(2**16)  # asked for again and again
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


def follows(model: CausalOrder, component: Component, ablated: Component) -> bool:
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
    found: list[bool] = downstream_of_each(model, [override], components)[0].tolist()
    return found


def downstream_of_each(
    model: ModelShape, overrides: Iterable[Override], components: Sequence[Component]
) -> Bool[np.ndarray, "override component"]:
    """Return whether each component is downstream of each override; see `downstream`.

    Overrides of the same components share the work: all pairs of 270 heads take a second.

        >>> attn, mlp = model.sublayers[:2]
        >>> downstream_of_each(model, [Override((attn,)), Override((mlp,))], [attn, mlp]).tolist()
        [[False, True], [False, False]]
    """
    place = {component: number for number, component in enumerate(components)}
    within: dict[Component, list[int]] = defaultdict(list)
    for number, component in enumerate(components):
        head = component.head if component.is_input else component
        for each in {component, component.sublayer, component.site, head}:
            within[each].append(number)

    @cache
    def following(ablated: Component) -> Bool[np.ndarray, "component"]:
        return np.array([follows(model, component, ablated) for component in components], bool)

    rows = []
    for override in overrides:
        row = np.logical_or.reduce([following(ablated) for ablated in override.ablated], axis=0)
        fixed = [number for component in override.overridden for number in within.get(component, ())]
        holders = [each for component in override.ablated for each in (component.sublayer, component.site)]
        row[fixed + [place[each] for each in holders if each in place]] = False
        rows.append(row)
    return np.array(rows, bool).reshape(-1, len(components))
