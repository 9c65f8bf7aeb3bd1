import matplotlib.pyplot as plt
import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.patches import FancyArrowPatch
from random_models import questions, random_models
from tiny import tiny

from hydrascope.causal import CausalModel, Endogenous, Exogenous, resample
from hydrascope.causal.figures.causal_graph import Marks, draw, effect_edges, figure4, figure5, layout, removed_edges
from hydrascope.causal.transformer import every_position_scm, final_position_scm


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def arrows(axes) -> list[FancyArrowPatch]:
    return [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]


@settings(deadline=None)
@given(random_models(linear=True))
def test_layout_puts_every_variable_above_its_parents_and_none_on_another(random):
    places = layout(random.model)
    assert len(set(places.values())) == len(random.model.graph)
    assert all(places[parent][1] < places[child][1] for parent, child in random.model.graph.edges)
    assert all(0 <= x <= 1 and 0 <= y <= 1 for x, y in places.values())


@settings(deadline=None)
@given(questions(linear=True))
def test_effect_edges_are_the_edges_of_all_paths(question):
    random, z, _, y = question
    paths = nx.all_simple_paths(random.model.graph, z, y)
    assert effect_edges(random.model, z, y) == {edge for path in paths for edge in nx.utils.pairwise(path)}


@settings(deadline=None)
@given(questions(linear=True), st.integers())
def test_removed_edges_are_the_in_edges(question, value):
    random, z, _, _ = question
    assert removed_edges(random.model, random.model.do({z: value})) == set(random.model.graph.in_edges(z))


def test_draw_shows_every_variable_and_every_edge():
    model = CausalModel(Exogenous("u"), Endogenous("x", lambda u: u), Endogenous("y", lambda x, u: x + u))
    intervened = model.do(x=resample())
    axes = draw(intervened, labels={"y": "outcome"}, marks=Marks(removed=removed_edges(model, intervened)))
    assert sorted(texts(axes)) == ["do(x)", "outcome", "u", "x"]
    assert len(arrows(axes)) == 4


def test_figure4_shows_the_whole_transformer():
    model = tiny("llama")
    figure = figure4(every_position_scm(model, 2), final_position_scm(model), "mlp.1")
    every, final = figure.axes
    assert len(texts(every)) == 1 + 2 + 6 * 2 + 1
    assert "$a^{2}_{1}$" in texts(every)
    assert len(texts(final)) == 1 + 1 + 6 + 1
    # Attention reads the prompt and everything before it, MLPs everything before them, the logits all seven.
    assert len(arrows(final)) == 1 + (2 + 2 + 4 + 4 + 6 + 6) + 7
    figure.savefig("/dev/null", format="png")


def test_figure5_says_the_effects():
    figure = figure5()
    titles = [axes.get_title().partition("\n")[0] for axes in figure.axes]
    assert titles == [
        "a   the model: y = 3",
        "b   total effect: −1",
        "c   direct effect: −2",
        "d   indirect effect: +1",
    ]
    assert [texts(axes)[-1] for axes in figure.axes] == ["3", "2", "1", "4"]
