import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import questions

from hydrascope.causal import (
    CausalModel,
    Endogenous,
    Exogenous,
    Intervention,
    expected_effect,
    mean,
    noise,
    resample,
    total_effect,
    value_in,
)
from hydrascope.utils.errors import HydrascopeError


def square() -> CausalModel:
    """u = ±1, x = u, y = x²: the average patch is 0, and every patch gives 1."""
    return CausalModel(
        Exogenous("u", lambda rng: int(rng.choice([-1, 1]))),
        Endogenous("x", lambda u: u),
        Endogenous("y", lambda x: x * x),
    )


@settings(deadline=None)
@given(questions(linear=False), st.integers(-9, 9))
def test_value_in_another_context(question, shift):
    random, z, _, _ = question
    other = {name: value + shift for name, value in random.context.items()}
    expected = random.model.do({z: random.model.value(z, other)}).evaluate(random.context)
    assert random.model.do({z: value_in(other)}).evaluate(random.context) == expected


@settings(deadline=None)
@given(questions(linear=False))
def test_value_in_another_model_is_a_nested_counterfactual(question):
    random, z, value, y = question
    model, u = random.model, random.context
    nested = model.do({y: value_in(u, model.do({z: value}))})
    assert nested.value(y, u) == model.do({z: value}).value(y, u)
    assert nested.value(z, u) == model.value(z, u) or y in model.ancestors(z)


def test_interventions_at_once_read_the_model_before_all_of_them():
    model = square().do(x=5, y=value_in({"u": 3}))
    assert model.evaluate({"u": 1}) == {"x": 5, "y": 9}
    assert square().do(x=5).do(y=value_in({"u": 3})).evaluate({"u": 1}) == {"x": 5, "y": 25}


def test_zero_ablation_is_do_zero():
    assert square().do(x=0).evaluate({"u": 1}) == {"x": 0, "y": 0}


def test_mean_ablation_sets_the_mean_and_resampling_averages_effects():
    model, draws = square(), 400
    patch = model.expectation("x", draws=draws, seed=2)
    assert model.do(x=mean(draws, seed=2)).evaluate({"u": 1}) == {"x": patch, "y": patch**2}
    assert abs(patch) < 4 / draws**0.5
    assert model.do(x=resample()).expectation("y", {"u": 1}, draws=draws) == 1


def test_resampling_draws_from_the_distribution_of_the_variable():
    model = CausalModel(Exogenous("u", lambda rng: rng.normal(3, 2)), Endogenous("x", lambda u: 10 * u))
    resampled = model.do(x=resample())
    draws = [resampled.value("x", resampled.sample({"u": 0}, draw=d)) for d in range(1000)]
    assert np.mean(draws) == pytest.approx(30, abs=4 * 20 / 1000**0.5)
    assert np.std(draws) == pytest.approx(20, rel=0.1)
    assert resampled.expectation("x", {"u": 0}, draws=1000) == pytest.approx(np.mean(draws), rel=1e-12)


def test_resampling_from_given_contexts_takes_all_of_them_and_no_other():
    resampled = square().do(x=resample([{"u": 2}, {"u": 5}]))
    draws = [resampled.value("y", resampled.sample(draw=d)) for d in range(60)]
    assert set(draws) == {4, 25}


def test_one_patch_is_a_context_of_the_resampled_model():
    assert square().do(x=resample()).evaluate({"u": 1, "do(x)": 7}) == {"x": 7, "y": 49}


def test_resampling_cuts_the_parents_off():
    graph = square().do(x=resample()).graph
    assert set(graph.edges) == {("do(x)", "x"), ("x", "y")}
    assert graph.nodes["do(x)"]["kind"] == "exogenous"


def test_noise_is_the_value_in_a_noisy_context():
    model = CausalModel(
        Exogenous("u"), Exogenous("v"), Endogenous("x", lambda u, v: u + 100 * v), Endogenous("y", lambda x: x)
    )
    u = {"u": 3.0, "v": 2.0}
    assert model.do(x=noise(0.0)).expectation("y", u, draws=3) == 203
    noisy = model.do(x=noise(0.5, "u"))
    draws = [noisy.value("y", noisy.sample(u, draw=d)) for d in range(1000)]
    assert np.mean(draws) == pytest.approx(203, abs=4 * 0.5 / 1000**0.5)
    assert np.std(draws) == pytest.approx(0.5, rel=0.1)
    both = model.do(x=noise(0.5))
    assert np.std([both.value("y", both.sample(u, draw=d)) for d in range(1000)]) == pytest.approx(50, rel=0.1)
    assert set(noisy.graph.predecessors("x")) == {"do(x)", "u", "v"}


def test_noise_keeps_a_tensor_s_kind():
    model = CausalModel(Exogenous("u"), Endogenous("x", lambda u: u))
    value = model.do(x=noise(1.0)).expectation("x", {"u": torch.zeros(2, 3, dtype=torch.float64)}, draws=2)
    assert value.shape == (2, 3)
    assert value.dtype is torch.float64
    assert len(value.unique()) == 6


def test_a_second_intervention_takes_the_first_ones_randomness_away():
    model = square().do(x=resample())
    assert set(model.do(x=1).exogenous) == {"u"}
    assert model.do(x=1).evaluate({"u": 1}) == {"x": 1, "y": 1}
    assert set(model.do(x=resample()).exogenous) == {"u", "do(x)"}
    assert model.do(x=resample()).expectation("y", draws=5) == 1


def test_an_intervention_of_ones_own_may_keep_the_parents():
    def shift(by: int) -> Intervention:
        def replace(model: CausalModel, name: str):
            old = model.endogenous[name]
            return (Endogenous(name, lambda *values: old.function(*values) + by, old.parents),)

        return Intervention(replace)

    assert square().do(x=shift(2)).do(x=shift(3)).evaluate({"u": 1}) == {"x": 6, "y": 36}
    assert square().do(x=shift(2)).graph.edges == square().graph.edges
    assert square().do(x=resample()).do(x=shift(1)).evaluate({"u": 1, "do(x)": 7}) == {"x": 8, "y": 64}
    assert total_effect(square(), {"x": shift(2)}, "y", {"u": 1}) == 8


def test_expected_effect_averages_effects():
    model = square()
    effect = expected_effect(total_effect, model, {"x": resample([{"u": 2}, {"u": 4}])}, "y", {"u": 1}, draws=300)
    # (4 − 1 + 16 − 1)/2 = 9, one draw's standard deviation is 6.
    assert effect == pytest.approx(9, abs=4 * 6 / 300**0.5)
    assert expected_effect(total_effect, model, {"x": 3}, "y", {"u": 1}, draws=2) == 8
    averaged = model.do(x=resample()).expectation("y", {"u": 1}, draws=20, seed=5) - model.value("y", {"u": 1})
    assert expected_effect(total_effect, model, {"x": resample()}, "y", {"u": 1}, draws=20, seed=5) == averaged


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda m: resample([]), "at least one context"),
        (lambda m: m.do(x=noise(1.0, "y")), "'y' is none"),
        (lambda m: m.do(x=resample()).do(x=noise(1.0)), "random already"),
        (lambda m: m.do(x=noise(1.0)).expectation("x", {"u": "a prompt"}, draws=1), "its value is a str"),
        (lambda m: m.do(x=value_in({})), "no value to 'u'"),
        (lambda m: expected_effect(total_effect, m, {"x": resample()}, "y", {"u": 1}, draws=0), "at least one"),
    ],
)
def test_errors_name_the_thing(ask, message):
    with pytest.raises(HydrascopeError, match=message):
        ask(square())
