"""Structural causal models, interventions and effects, by definition.

They follow section 3 of the paper. A model is a few named variables with plain functions between them; nothing here
depends on transformers.

    >>> from hydrascope.causal import CausalModel, Endogenous, Exogenous, effects
    >>> model = CausalModel(
    ...     Exogenous("u", lambda rng: rng.normal()),
    ...     Endogenous("x", lambda u: u),
    ...     Endogenous("f", lambda x: -x),
    ...     Endogenous("y", lambda x, f: x + f),
    ... )
    >>> effects(model, {"x": 0}, "y", {"u": 3})
    Effects(total=0, direct=-3, indirect=3)
"""

from hydrascope.causal.effects import (
    Effects,
    compensatory_effect,
    contribution,
    direct_effect,
    effects,
    expected_effect,
    frozen_effect,
    indirect_effect,
    path_effect,
    total_effect,
)
from hydrascope.causal.interventions import mean, noise, resample, value_in
from hydrascope.causal.model import CausalModel, Context, Endogenous, Exogenous, Intervention, Value

__all__ = [
    "CausalModel",
    "Context",
    "Effects",
    "Endogenous",
    "Exogenous",
    "Intervention",
    "Value",
    "compensatory_effect",
    "contribution",
    "direct_effect",
    "effects",
    "expected_effect",
    "frozen_effect",
    "indirect_effect",
    "mean",
    "noise",
    "path_effect",
    "resample",
    "total_effect",
    "value_in",
]
