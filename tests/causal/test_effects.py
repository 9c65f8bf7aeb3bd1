import itertools

import networkx as nx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_models import questions

from hydrascope.causal import (
    CausalModel,
    Effects,
    Endogenous,
    Exogenous,
    compensatory_effect,
    contribution,
    direct_effect,
    effects,
    frozen_effect,
    indirect_effect,
    path_effect,
    resample,
    total_effect,
)
from hydrascope.utils.errors import HydrascopeError


def path_sum(random, source: str, outcome: str, longer_than: int = 0) -> int:
    """Wright's rule: in a linear model the effect of one unit is the sum over paths of the products of weights."""
    return sum(
        int(np.prod([random.weights[edge] for edge in itertools.pairwise(path)]))
        for path in nx.all_simple_paths(random.model.graph, source, outcome)
        if len(path) - 1 > longer_than
    )


@settings(deadline=None)
@given(questions(linear=True), st.one_of(st.none(), st.integers(-9, 9)))
def test_linear_models_follow_wrights_rule(question, start):
    random, z, value, y = question
    before = random.model.value(z, random.context) if start is None else start
    by = value - before
    answer = effects(random.model, {z: value}, y, random.context, None if start is None else {z: start})
    assert answer.total == by * path_sum(random, z, y)
    assert answer.direct == by * random.weights.get((z, y), 0)
    assert answer.indirect == by * path_sum(random, z, y, longer_than=1)
    assert answer.total == answer.direct + answer.indirect


def test_total_is_not_direct_plus_indirect_where_parents_interact():
    model = CausalModel(
        Exogenous("u"), Endogenous("x", lambda u: u), Endogenous("m", lambda x: x), Endogenous("y", lambda x, m: x * m)
    )
    assert effects(model, {"x": 0}, "y", {"u": 1}) == Effects(total=-1, direct=-1, indirect=-1)


@settings(deadline=None)
@given(questions(linear=False), st.integers(-9, 9))
def test_no_effect_on_what_is_not_downstream(question, start):
    random, z, value, y = question
    assume(y not in random.model.descendants(z))
    answer = effects(random.model, {z: value}, y, random.context, {z: start})
    assert answer == Effects(total=0, direct=0, indirect=0)


@settings(deadline=None)
@given(questions(linear=False), st.integers(-9, 9))
def test_no_direct_effect_without_a_direct_edge(question, start):
    random, z, value, y = question
    assume((z, y) not in random.model.graph.edges)
    assert direct_effect(random.model, {z: value}, y, random.context, {z: start}) == 0
    assert indirect_effect(random.model, {z: value}, y, random.context, {z: start}) == total_effect(
        random.model, {z: value}, y, random.context, {z: start}
    )


@settings(deadline=None)
@given(questions(linear=False), st.integers(-9, 9))
def test_no_change_no_effect(question, start):
    random, z, _, y = question
    assert effects(random.model, {z: start}, y, random.context, {z: start}) == Effects(0, 0, 0)


@settings(deadline=None)
@given(questions(linear=False))
def test_effects_are_the_definitions_written_out(question):
    random, z, value, y = question
    model, u = random.model, random.context
    natural = model.evaluate(u)
    moved = model.do({z: value}).evaluate(u)
    rest = [name for name in natural if name not in (z, y)]
    assert total_effect(model, {z: value}, y, u) == moved[y] - natural[y]
    direct = model.do({z: value, **{name: natural[name] for name in rest}}).evaluate(u)[y] - natural[y]
    assert direct_effect(model, {z: value}, y, u) == direct
    indirect = model.do({z: natural[z], **{name: moved[name] for name in rest}}).evaluate(u)[y] - natural[y]
    assert indirect_effect(model, {z: value}, y, u) == indirect


@settings(deadline=None)
@given(questions(linear=False), st.one_of(st.none(), st.integers(-9, 9)), st.data())
def test_path_effects_contain_all_the_others(question, start, data):
    random, z, value, y = question
    model, change = random.model, {z: value}
    rest = (y, random.context)
    begin = None if start is None else {z: start}
    edges = set(model.graph.edges)
    assert path_effect(model, change, *rest, edges, begin) == total_effect(model, change, *rest, begin)
    assert path_effect(model, change, *rest, edges - {(z, y)}, begin) == indirect_effect(model, change, *rest, begin)
    assert path_effect(model, change, *rest, edges & {(z, y)}, begin) == direct_effect(model, change, *rest, begin)
    assert path_effect(model, change, *rest, set(), begin) == 0
    others = sorted(set(model.endogenous) - {z, y})
    frozen = set(data.draw(st.lists(st.sampled_from(others), unique=True))) if others else set()
    around = {edge for edge in edges if edge[0] not in frozen}
    assert frozen_effect(model, change, *rest, frozen, begin) == path_effect(model, change, *rest, around, begin)
    assert frozen_effect(model, change, *rest, [], begin) == total_effect(model, change, *rest, begin)
    assert frozen_effect(model, change, *rest, others, begin) == direct_effect(model, change, *rest, begin)


@settings(deadline=None)
@given(questions(linear=True), st.data())
def test_in_linear_models_path_effects_add_up(question, data):
    random, z, value, y = question
    model, u = random.model, random.context
    by = value - model.value(z, u)
    paths = [list(itertools.pairwise(path)) for path in nx.all_simple_paths(model.graph, z, y)]
    for path in paths:
        along = path_effect(model, {z: value}, y, u, path)
        assert along == by * int(np.prod([random.weights[edge] for edge in path]))


@settings(deadline=None)
@given(questions(linear=True))
def test_in_linear_models_compensation_is_the_indirect_effect(question):
    random, z, value, y = question
    model, u = random.model, random.context
    assert compensatory_effect(model, {z: value}, y, u) == indirect_effect(model, {z: value}, y, u)
    for name in model.endogenous[y].parents:
        if name in model.endogenous:
            assert contribution(model, name, y, u) == random.weights[name, y] * model.value(name, u)


def test_a_joint_change_is_one_change():
    model = CausalModel(
        Exogenous("u"),
        Endogenous("a", lambda u: u),
        Endogenous("b", lambda a: 2 * a),
        Endogenous("c", lambda a, b: a * b),
        Endogenous("y", lambda a, b, c: a + b + c),
    )
    assert effects(model, {"a": 0, "b": 1}, "y", {"u": 3}) == Effects(total=-26, direct=-8, indirect=-18)
    assert compensatory_effect(model, {"a": 0, "b": 1}, "y", {"u": 3}) == -18
    assert compensatory_effect(model, {"a": 0}, "y", {"u": 3}, among=["c"]) == -18


def test_effects_on_an_array_are_an_array_of_effects():
    model = CausalModel(Exogenous("u"), Endogenous("x", lambda u: u), Endogenous("y", lambda x: np.stack([x, x * x])))
    assert total_effect(model, {"x": 3.0}, "y", {"u": 2.0}).tolist() == [1.0, 5.0]
    assert contribution(model, "x", "y", {"u": 2.0}).tolist() == [2.0, 4.0]


@pytest.mark.parametrize("effect", [total_effect, direct_effect, indirect_effect, effects, compensatory_effect])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": 1}, "'y' is the outcome"),
        ({"u": 1}, "exogenous"),
        ({"w": 1}, "no variable 'w'"),
        ({"x": resample([{"u": 1}])}, "it is random"),
    ],
)
def test_errors_name_the_thing(effect, change, message):
    model = CausalModel(Exogenous("u"), Endogenous("x", lambda u: u), Endogenous("y", lambda x: x))
    with pytest.raises(HydrascopeError, match=message):
        effect(model, change, "y", {"u": 1})


def test_errors_of_path_effects():
    model = CausalModel(Exogenous("u"), Endogenous("x", lambda u: u), Endogenous("y", lambda x: x))
    with pytest.raises(HydrascopeError, match="no edge u → y"):
        path_effect(model, {"x": 1}, "y", {"u": 1}, [("u", "y")])
    with pytest.raises(HydrascopeError, match="'x' is the changed variable or the outcome"):
        frozen_effect(model, {"x": 1}, "y", {"u": 1}, ["x"])
    with pytest.raises(HydrascopeError, match="no variable 'w'"):
        frozen_effect(model, {"x": 1}, "y", {"u": 1}, ["w"])
    with pytest.raises(HydrascopeError, match="no variable 'w'"):
        compensatory_effect(model, {"x": 1}, "y", {"u": 1}, ["w"])
    with pytest.raises(HydrascopeError, match="start must"):
        total_effect(model, {"x": 1}, "y", {"u": 1}, {"y": 1})
