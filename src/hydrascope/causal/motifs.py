"""The toy models of the paper (Fig. 5 and 6) as causal models.

In both motifs y = x + f(x, u) (Eq. 30): x reaches y directly and through f. If x is set to 0, the total and the direct
effect disagree, for two different reasons.
"""

from hydrascope.causal.model import CausalModel, Endogenous, Exogenous

# Its range leaves out 0, where setting x to 0 changes nothing.
_U = Exogenous("u", lambda rng: float(rng.uniform(0.5, 2.5)))


def erasure() -> CausalModel:
    """Return the erasure motif, f = −x (Eq. 31): f removes the output of x, so y is always 0.

    >>> erasure().do(x=0).value("y", {"u": 1})
    0
    """
    return CausalModel(
        _U,
        Endogenous("x", lambda u: u),
        Endogenous("f", lambda x: -x),
        Endogenous("y", lambda x, f: x + f),
    )


def self_repair() -> CausalModel:
    """Return the self-repair motif, f = 0 if x = u, else u (Eq. 32): f replaces a missing x.

    y is u, with x set to 0 or not.

    >>> self_repair().do(x=0).value("y", {"u": 1})
    1
    """
    return CausalModel(
        _U,
        Endogenous("x", lambda u: u),
        Endogenous("f", lambda x, u: 0.0 if x == u else u),
        Endogenous("y", lambda x, f: x + f),
    )


def two_layer_residual_network() -> CausalModel:
    """Return the network of Fig. 5: an embedding e and two layers that add to the stream.

    a₁ = 2e, a₂ = max(0, 3 − (e + a₁))/2, y = e + a₁ + a₂. The second layer restores half of a missing a₁.

    >>> two_layer_residual_network().value("y", {"u": 1})
    3.0
    """
    return CausalModel(
        Exogenous("u", lambda rng: float(rng.uniform(0.5, 1.5))),
        Endogenous("e", lambda u: u),
        Endogenous("a1", lambda e: 2 * e),
        Endogenous("a2", lambda e, a1: max(0.0, 3 - (e + a1)) / 2),
        Endogenous("y", lambda e, a1, a2: e + a1 + a2),
    )
