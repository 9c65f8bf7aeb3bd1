"""What can Z be set to, besides a constant? Appendix A: Eq. 35–39."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hydrascope.causal.model import (
    CausalModel,
    Context,
    Endogenous,
    Exogenous,
    Intervention,
    Value,
    Variable,
    constant,
    randomness,
)
from hydrascope.utils.errors import HydrascopeError


def value_in(context: Context, model: CausalModel | None = None) -> Intervention:
    """do(Z = Z(u′)): the value that Z has in another context (Eq. 11), or in another model, if one is given.

    `model.do(m=value_in(u, model.do(x=0)))` sets m to what it would be had x been 0: a nested counterfactual.
    """
    return Intervention(lambda own, name: constant((model or own).value(name, context)).replace(own, name))


def mean(draws: int = 1000, *, seed: int = 0) -> Intervention:
    """do(Z = E[Z(u)]), mean ablation (Eq. 36), the mean taken over `draws` contexts from P(u)."""
    return Intervention(
        lambda model, name: constant(model.expectation(name, draws=draws, seed=seed)).replace(model, name)
    )


def resample(contexts: Sequence[Context] | None = None) -> Intervention:
    """do(Z = Z(ũ)), ũ ~ P(u), resample ablation (Eq. 38); or ũ uniform over the given contexts.

    The new model has one more exogenous variable, `do(Z)`, whose distribution is that of Z(ũ): fix it in the
    context for one patch, or take the `expectation` for the average of Eq. 39. Variables resampled together
    are drawn independently of each other; to take them from one context, set each to `value_in` it.

    Raises:
        HydrascopeError: `contexts` is empty.
    """
    if contexts is not None and not len(contexts):
        raise HydrascopeError("resample needs at least one context to draw from")

    def replace(model: CausalModel, name: str) -> tuple[Variable, ...]:
        def draw(rng: np.random.Generator) -> Value:
            if contexts is None:
                return model.value(name, model.sample(seed=int(rng.integers(2**63))))
            return model.value(name, contexts[int(rng.integers(len(contexts)))])

        source = randomness(name)
        return Exogenous(source, draw), Endogenous(name, lambda patch: patch, (source,))

    return Intervention(replace)


def noise(scale: float, *variables: str) -> Intervention:
    """do(Z = Z(u + ε)), ε ~ N(0, scale²), noise ablation (Eq. 37).

    The noise is added to the named exogenous variables, by default to all that aren't themselves the draw of
    an intervention; they must be numeric. The new model has one more exogenous variable, `do(Z)`, the seed of
    ε; Z becomes a function of u and of that alone.

    Raises:
        HydrascopeError: the model has no such exogenous variable, it isn't numeric, or Z is random already.
    """

    def replace(model: CausalModel, name: str) -> tuple[Variable, ...]:
        source = randomness(name)
        if source in model.exogenous:
            raise HydrascopeError(f"{name!r} is random already: intervene on the model before that")
        drawn = {randomness(v) for v in model.endogenous}
        noisy = variables or tuple(v for v in model.exogenous if v not in drawn)
        if unknown := [v for v in noisy if v not in model.exogenous]:
            raise HydrascopeError(
                f"noise needs exogenous variables, and {unknown[0]!r} is none; there are {', '.join(model.exogenous)}"
            )
        read = tuple(v for v in model.exogenous if v in model.ancestors(name))

        def value(seed: int, *values: Value) -> Value:
            context = dict(zip(read, values, strict=True))
            for v in noisy:
                if v in context:
                    rng = np.random.default_rng([seed, *v.encode()])
                    context[v] = _add_noise(v, context[v], scale, rng)
            return model.value(name, context)

        return (
            Exogenous(source, lambda rng: int(rng.integers(2**63))),
            Endogenous(name, value, (source, *read)),
        )

    return Intervention(replace)


def _add_noise(name: str, value: Any, scale: float, rng: np.random.Generator) -> Value:
    try:
        epsilon = scale * rng.standard_normal(np.shape(value))
        # A torch tensor keeps its dtype and its device.
        return value + (value.new_tensor(epsilon) if hasattr(value, "new_tensor") else epsilon)
    except (TypeError, ValueError):
        raise HydrascopeError(f"noise cannot be added to {name!r}: its value is a {type(value).__name__}") from None
