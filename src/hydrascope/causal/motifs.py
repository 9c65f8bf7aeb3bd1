"""How can ablating x leave y as it was? The toy models of the paper, Fig. 5 and 6, as causal models.

In each, y = x + f(x, u) (Eq. 30): x reaches y directly, and f answers for the rest. Set x to 0 and total and
direct effect disagree, for two different reasons.
"""

from hydrascope.causal.model import CausalModel, Endogenous, Exogenous

# Away from 0, where ablating x to 0 would change nothing.
_U = Exogenous("u", lambda rng: float(rng.uniform(0.5, 2.5)))


def erasure() -> CausalModel:
    """f = −x (Eq. 31): whatever x writes, f takes back. y is 0 with x and without it."""
    return CausalModel(
        _U,
        Endogenous("x", lambda u: u),
        Endogenous("f", lambda x: -x),
        Endogenous("y", lambda x, f: x + f),
    )


def self_repair() -> CausalModel:
    """f = 0 if x = u, else u (Eq. 32): f steps in when x is not what it should be. y is u with x ablated to 0 and
    without."""
    return CausalModel(
        _U,
        Endogenous("x", lambda u: u),
        Endogenous("f", lambda x, u: 0.0 if x == u else u),
        Endogenous("y", lambda x, f: x + f),
    )


def two_layer_residual_network() -> CausalModel:
    """Fig. 5: an embedding e and two layers, each reading the residual stream before it and adding to it.

    a₁ = 2e, a₂ = max(0, 3 − (e + a₁))/2, y = e + a₁ + a₂: the second layer makes up for half of what is missing.
    """
    return CausalModel(
        Exogenous("u", lambda rng: float(rng.uniform(0.5, 1.5))),
        Endogenous("e", lambda u: u),
        Endogenous("a1", lambda e: 2 * e),
        Endogenous("a2", lambda e, a1: max(0.0, 3 - (e + a1)) / 2),
        Endogenous("y", lambda e, a1, a2: e + a1 + a2),
    )
