"""Leave out ablations that write what stands there anyway: they need no rows.

Zero ablation of a neuron that is 0, as many are after a ReLU, changes nothing. A pair of such a neuron and a later
component is the ablation of the later one alone, whose rows are made once.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from hydrascope.ablations.ablation import Values
from hydrascope.components.component import Component, Override
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.models.language_model import LanguageModel


def without_idle(
    clean: CleanActivations, indices: Sequence[int], overrides: Sequence[Override], values: Values
) -> tuple[tuple[Override, ...], Values]:
    """Return overrides without what changes nothing on some prompts, and the drawn values.

        >>> asked = tuple(map(Override.parse, ("neuron.0.1", "neuron.0.1+attn.1")))  # where neuron.0.1 is 0
        >>> list(map(str, without_idle(clean, [0], asked, zeros)[0]))                       # doctest: +SKIP
        ['', 'attn.1']

    Args:
        clean: the clean activations of all prompts.
        indices: the prompts.
        overrides: the overrides.
        values: the patches of each component on these prompts.
    """
    components = dict.fromkeys(component for override in overrides for component in override.ablated)
    drawn = {component: values(component) for component in components}
    idle = {
        component
        for component, patches in drawn.items()
        if not component.is_term and bool((patches == clean.own_activations(component, indices)).all())
    }
    left = tuple(_without(clean.model, override, idle) for override in overrides) if idle else tuple(overrides)
    return left, drawn.__getitem__


def _without(model: LanguageModel, override: Override, idle: AbstractSet[Component]) -> Override:
    """Return an override without the idle components up to the first that isn't.

    After it activations differ from the clean ones, so that writing those changes something.
    """
    if idle.isdisjoint(override.ablated) or any(component.is_term for component in override.overridden):
        return override
    first = min((model.stage(each) for each in override.ablated if each not in idle), default=None)
    kept = [each for each in override.ablated if first is not None and (each not in idle or model.stage(each) > first)]
    return Override(tuple(kept), override.frozen if kept else ())
