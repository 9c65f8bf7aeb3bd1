"""Random causal models over the integers, exact in every operation, and what hypothesis needs to draw them."""

from dataclasses import dataclass

from hypothesis import strategies as st

from hydrascope.causal import CausalModel, Endogenous, Exogenous

MODULUS = 101


@dataclass(frozen=True)
class RandomModel:
    """A model, the weight of every edge, and a context."""

    model: CausalModel
    weights: dict[tuple[str, str], int]
    context: dict[str, int]


@st.composite
def random_models(draw, linear: bool) -> RandomModel:
    """v_i = Σ_p w_p·p, in non-linear models plus a product of all parents, all modulo a prime."""
    exogenous = [f"u{i}" for i in range(draw(st.integers(1, 2)))]
    names = [f"v{i}" for i in range(draw(st.integers(2, 6)))]
    weights: dict[tuple[str, str], int] = {}
    variables: list[Endogenous] = []
    for i, name in enumerate(names):
        parents = tuple(draw(st.lists(st.sampled_from([*exogenous, *names[:i]]), unique=True, max_size=4)))
        own = [draw(st.integers(-3, 3)) for _ in parents]
        weights |= {(parent, name): weight for parent, weight in zip(parents, own, strict=True)}

        def function(*values: int, own=own) -> int:
            weighted = sum(w * v for w, v in zip(own, values, strict=True))
            if linear:
                return weighted
            product = 1
            for value in values:
                product *= value + 2
            return (weighted + product) % MODULUS

        variables.append(Endogenous(name, function, parents))
    order = draw(st.permutations(variables))
    model = CausalModel(*(Exogenous(name, lambda rng: int(rng.integers(-9, 9))) for name in exogenous), *order)
    context = {name: draw(st.integers(-9, 9)) for name in exogenous}
    return RandomModel(model, weights, context)


@st.composite
def questions(draw, linear: bool) -> tuple[RandomModel, str, int, str]:
    """A random model, a variable to change, its new value, and an outcome."""
    random = draw(random_models(linear))
    changed, outcome = draw(st.permutations(sorted(random.model.endogenous)))[:2]
    return random, changed, draw(st.integers(-9, 9)), outcome
