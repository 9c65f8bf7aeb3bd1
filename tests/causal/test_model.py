import doctest

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import questions, random_models

import hydrascope.causal
from hydrascope.causal import CausalModel, Endogenous, Exogenous, resample
from hydrascope.utils.errors import HydrascopeError


def chain() -> CausalModel:
    return CausalModel(
        Exogenous("u", lambda rng: rng.normal()),
        Endogenous("y", lambda x, m: 10 * x + m),
        Endogenous("m", lambda x: x + 1),
        Endogenous("x", lambda u: 2 * u),
    )


def by_recursion(model: CausalModel, name: str, values: dict):
    """The definition of V_i(u), read literally; `values` holds the context and the interventions."""
    if name in values:
        return values[name]
    variable = model.endogenous[name]
    return variable.function(*(by_recursion(model, parent, values) for parent in variable.parents))


def test_evaluates_in_causal_order_whatever_the_order_of_writing():
    assert chain().evaluate({"u": 3}) == {"x": 6, "m": 7, "y": 67}


@settings(deadline=None)
@given(random_models(linear=False))
def test_evaluate_is_the_recursive_definition(random):
    expected = {name: by_recursion(random.model, name, random.context) for name in random.model.endogenous}
    assert random.model.evaluate(random.context) == expected
    assert {name: random.model.value(name, random.context) for name in expected} == expected


@settings(deadline=None)
@given(questions(linear=False))
def test_do_replaces_one_function_and_leaves_the_original_alone(question):
    random, z, value, _ = question
    before = random.model.evaluate(random.context)
    intervened = random.model.do({z: value})
    expected = {n: by_recursion(random.model, n, {**random.context, z: value}) for n in random.model.endogenous}
    assert intervened.evaluate(random.context) == expected
    assert random.model.evaluate(random.context) == before
    kept = set(random.model.graph.edges) - set(random.model.graph.in_edges(z))
    assert set(intervened.graph.edges) == kept


@settings(deadline=None)
@given(questions(linear=False), st.integers(-9, 9))
def test_do_composes(question, other):
    random, z, value, y = question
    model, u = random.model, random.context
    once = model.do({z: value})
    assert once.do({z: value}).evaluate(u) == once.evaluate(u)
    assert model.do({z: other}).do({z: value}).evaluate(u) == once.evaluate(u)
    assert once.do({y: other}).evaluate(u) == model.do({y: other, z: value}).evaluate(u)
    assert model.do({y: other}).do({z: value}).evaluate(u) == model.do({y: other, z: value}).evaluate(u)


@settings(deadline=None)
@given(questions(linear=False))
def test_setting_a_variable_to_the_value_it_has_changes_nothing(question):
    random, z, _, _ = question
    values = random.model.evaluate(random.context)
    assert random.model.do({z: values[z]}).evaluate(random.context) == values


@settings(deadline=None)
@given(random_models(linear=False))
def test_graph_is_the_parents(random):
    model = random.model
    assert set(model.graph.edges) == {(p, n) for n, v in model.endogenous.items() for p in v.parents}
    assert nx.is_directed_acyclic_graph(model.graph)
    for name in model.endogenous:
        assert model.ancestors(name) == {a for a in model.graph if name in model.descendants(a)}


def test_graph_says_what_each_variable_is_and_cannot_be_changed():
    graph = chain().do(x=0).graph
    assert dict(graph.nodes(data="kind")) == {
        "u": "exogenous",
        "x": "intervened",
        "m": "endogenous",
        "y": "endogenous",
    }
    with pytest.raises(nx.NetworkXError):
        graph.add_edge("x", "u")


def test_only_ancestors_are_computed_and_needed():
    def never(x: float) -> float:
        raise AssertionError("not an ancestor")

    model = CausalModel(Exogenous("u"), Exogenous("v"), Endogenous("x", lambda u: u), Endogenous("y", never, ("x",)))
    assert model.value("x", {"u": 1}) == 1
    assert model.value("u", {"u": 1}) == 1


@pytest.mark.parametrize("make", [float, np.array, torch.tensor], ids=["number", "numpy", "torch"])
def test_values_may_be_numbers_arrays_or_tensors(make):
    model = chain()
    y = model.do(m=make([1.0, 2.0]) if make is not float else 1.0).value("y", {"u": make(3.0)})
    assert np.allclose(np.asarray(y), [61.0, 62.0] if make is not float else 61.0)


def test_the_parents_are_the_parameters_without_a_default():
    weight = 2
    variable = Endogenous("y", lambda x, m, weight=weight: weight * (x + m))
    assert variable.parents == ("x", "m")


def test_samples_are_reproducible_and_common_to_intervened_models():
    model = chain()
    assert model.sample(seed=1, draw=5) == model.sample(seed=1, draw=5) == model.do(x=0).sample(seed=1, draw=5)
    assert len({model.sample(seed=s, draw=d)["u"] for s in range(3) for d in range(3)}) == 9
    assert model.sample({"u": 2}) == {"u": 2}
    assert model.do(x=resample()).sample(seed=4)["u"] == model.sample(seed=4)["u"]


def test_expectation_is_the_mean_over_draws():
    model = chain()
    draws = [model.value("y", model.sample(seed=3, draw=d)) for d in range(7)]
    assert model.expectation("y", draws=7, seed=3) == pytest.approx(np.mean(draws), rel=1e-14)
    # y = 22u + 1 with u standard normal: mean 1, standard error 22/√4000.
    assert model.expectation("y", draws=4000) == pytest.approx(1, abs=4 * 22 / 4000**0.5)
    assert model.expectation("y", {"u": 1}, draws=3) == 23


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ([Endogenous("x", lambda: 1), Exogenous("x")], "named 'x'"),
        ([Endogenous("x", lambda y: y)], "parent 'y', which is no variable"),
        ([Endogenous("x", lambda x: x)], "x → x"),
        ([Endogenous("x", lambda y: y), Endogenous("y", lambda z: z), Endogenous("z", lambda x: x)], "cycle"),
    ],
)
def test_models_that_are_none(variables, message):
    with pytest.raises(HydrascopeError, match=message):
        CausalModel(*variables)


@pytest.mark.parametrize("function", [lambda *pa: 0, lambda *, x: x, max])
def test_parents_that_cannot_be_read_must_be_given(function):
    with pytest.raises(HydrascopeError, match="give parents="):
        Endogenous("y", function)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda m: m.do(z=1), "no variable 'z'; there are u, x, m, y"),
        (lambda m: m.do(u=1), "exogenous"),
        (lambda m: m.do({"x": 1}, x=2), "'x' twice"),
        (lambda m: m.evaluate({}), "no value to 'u'"),
        (lambda m: m.evaluate({"u": 1, "x": 2}), "use do"),
        (lambda m: m.evaluate({"u": 1, "w": 2}), "no variable 'w'"),
        (lambda m: m.value("w", {"u": 1}), "no variable 'w'"),
        (lambda m: m.ancestors("w"), "no variable 'w'"),
        (lambda m: m.expectation("y", draws=0), "at least one draw"),
        (lambda m: m.do(x=resample()).value("y", {"u": 1}), r"'do\(x\)'; it is random: take expectation"),
        (lambda m: CausalModel(Exogenous("u")).sample(), "no distribution"),
        (lambda m: Endogenous("y", max, ("x", "x")), "twice"),
    ],
)
def test_errors_name_the_thing(ask, message):
    with pytest.raises(HydrascopeError, match=message):
        ask(chain())


def test_repr_reads_as_the_graph():
    assert repr(chain().do(m=1)) == "CausalModel(u; x ← u; m ← constant; y ← x, m)"


def test_the_example_of_the_package_is_right():
    assert doctest.testmod(hydrascope.causal) == (0, 3)
