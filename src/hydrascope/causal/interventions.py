"""Interventions that set a variable to more than a constant (Appendix A, Eq. 35–39)."""

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
    """Set a variable to its value in another context, do(Z = Z(u′)) (Eq. 11).

    With `model`, the value is taken from that model: `scm.do(m=value_in(u, scm.do(x=0)))` sets m to its value had x
    been 0, a nested counterfactual.

        >>> from hydrascope.causal.motifs import erasure
        >>> erasure().do(x=value_in({"u": 5})).value("x", {"u": 1})
        5

    Args:
        context: the other context u′.
        model: the model to take the value from; by default the model that is intervened on.

    Returns:
        An intervention for `CausalModel.do`.
    """
    return Intervention(lambda own, name: constant((model or own).value(name, context)).replace(own, name))


def mean(draws: int = 1000, *, seed: int = 0) -> Intervention:
    """Set a variable to its mean over contexts, do(Z = E[Z(u)]): mean ablation (Eq. 36).

        >>> from hydrascope.causal.motifs import erasure
        >>> ablated = erasure().do(x=mean(draws=100))

    Args:
        draws: the number of contexts drawn from P(u).
        seed: the seed of the draws.

    Returns:
        An intervention for `CausalModel.do`.
    """
    return Intervention(
        lambda model, name: constant(model.expectation(name, draws=draws, seed=seed)).replace(model, name)
    )


def resample(contexts: Sequence[Context] | None = None) -> Intervention:
    """Set a variable to its value in a random context, do(Z = Z(ũ)): resample ablation (Eq. 38).

    The new model has one more exogenous variable, `do(Z)`, with the distribution of Z(ũ). Fix it in the context for
    one patch, or take the `expectation` for the average of Eq. 39. Variables resampled together are drawn
    independently; to take them from one context, set each to `value_in` that context.

        >>> from hydrascope.causal.motifs import erasure
        >>> erasure().do(x=resample([{"u": 5}])).expectation("x", {"u": 1}, draws=3)
        5.0

    Args:
        contexts: the contexts that ũ is drawn from, uniformly; by default ũ is drawn from P(u).

    Returns:
        An intervention for `CausalModel.do`.

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
    """Set a variable to its value under noisy inputs, do(Z = Z(u + ε)): noise ablation (Eq. 37).

    ε ~ N(0, scale²). The new model has one more exogenous variable, `do(Z)`, the seed of ε; Z becomes a function of
    u and this seed.

        >>> from hydrascope.causal.motifs import erasure
        >>> noisy = erasure().do(x=noise(0.1))

    Args:
        scale: the standard deviation of ε.
        variables: the numeric exogenous variables that noise is added to; by default all except those that an
            intervention has added.

    Returns:
        An intervention for `CausalModel.do`.

    Raises:
        HydrascopeError: in `do`, a variable isn't exogenous or Z is random already; on evaluation, a variable isn't
            numeric.
    """

    def replace(model: CausalModel, name: str) -> tuple[Variable, ...]:
        source = randomness(name)
        if source in model.exogenous:
            raise HydrascopeError(f"{name!r} is random already: intervene on the model before that")
        added = {randomness(v) for v in model.endogenous}
        noisy = variables or tuple(v for v in model.exogenous if v not in added)
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
