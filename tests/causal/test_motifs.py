import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hydrascope.causal import Effects, compensatory_effect, contribution, effects, motifs

contexts = st.integers(1, 50).map(lambda n: {"u": n / 8})


@settings(deadline=None)
@given(contexts)
def test_erasure_keeps_y_at_zero(u):
    model, x = motifs.erasure(), u["u"]
    assert model.evaluate(u) == {"x": x, "f": -x, "y": 0}
    assert model.do(x=0).value("y", u) == 0
    assert effects(model, {"x": 0}, "y", u) == Effects(total=0, direct=-x, indirect=x)
    assert compensatory_effect(model, {"x": 0}, "y", u) == x
    assert (contribution(model, "f", "y", u), contribution(model.do(x=0), "f", "y", u)) == (-x, 0)


@settings(deadline=None)
@given(contexts)
def test_self_repair_keeps_y_at_u(u):
    model, x = motifs.self_repair(), u["u"]
    assert model.evaluate(u) == {"x": x, "f": 0, "y": x}
    assert model.do(x=0).value("y", u) == x
    assert effects(model, {"x": 0}, "y", u) == Effects(total=0, direct=-x, indirect=x)
    assert compensatory_effect(model, {"x": 0}, "y", u) == x
    assert (contribution(model, "f", "y", u), contribution(model.do(x=0), "f", "y", u)) == (0, x)


@settings(deadline=None)
@given(contexts, st.integers(-20, 20).map(lambda n: n / 8))
def test_erasure_undoes_every_change_and_self_repair_only_removal(u, value):
    assert effects(motifs.erasure(), {"x": value}, "y", u).total == 0
    assert effects(motifs.self_repair(), {"x": value}, "y", u).total == (0 if value == u["u"] else value)


def test_two_layer_network_repairs_half():
    model, u = motifs.two_layer_residual_network(), {"u": 1.0}
    assert model.evaluate(u) == {"e": 1, "a1": 2, "a2": 0, "y": 3}
    assert effects(model, {"a1": 0}, "y", u) == Effects(total=-1, direct=-2, indirect=1)


@pytest.mark.parametrize("make", [motifs.erasure, motifs.self_repair, motifs.two_layer_residual_network])
def test_contexts_stay_away_from_zero(make):
    assert all(make().sample(draw=draw)["u"] >= 0.5 for draw in range(50))
