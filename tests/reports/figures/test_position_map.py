"""The figure of a position map: numbers read back from its artists."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from plain import loaded

import hydrascope as hs
from hydrascope.reports.figures import figure_map
from hydrascope.reports.figures.position_map import COLOURS


@pytest.fixture(scope="module")
def found():
    """A map whose costs are made up, so that it is known what stands out."""
    measured = hs.analyses.position_map(loaded("gpt2"), "a $b.")
    cost = np.zeros(measured["cost"].shape)
    cost[3, 0], cost[0, 5], cost[2, 2], cost[1, 1], cost[2, 3] = 0.2, 9.0, 3.0, -2.0, -0.2
    texts = ("token", np.array(["a", " ", "$", "b", "\n"], object))
    return measured.assign(cost=measured["cost"].copy(data=cost)).assign_coords(token_text=texts)


def test_cells_dots_and_labels(found):
    figure = figure_map(found)
    attention, mlps = figure.axes[:2]
    for axes, columns in ((attention, [0, 2, 4]), (mlps, [1, 3, 5])):
        np.testing.assert_allclose(axes.collections[0].get_array(), found["cost"].values[:, columns])
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2"]
        # The first token is above.
        assert axes.get_ylim() == (4.5, -0.5)
    # A dot where at least 0.3 is gained, and nowhere else.
    dots = [axes.collections[1].get_offsets().tolist() for axes in (attention, mlps)]
    assert dots == [[], [[0.0, 1.0]]]
    # Overall and beyond block 1 it is one cell, in attention another; and the largest gain.
    assert [text.get_text() for text in attention.texts] == ["attn.1 3.0"]
    assert [text.get_text() for text in mlps.texts] == ["mlp.2 9.0", "mlp.0 −2.0"]
    assert [label.get_text() for label in attention.get_yticklabels()] == ["a", "␣", "$", "b", "⏎"]
    assert attention.get_yticklabels()[-1].get_fontweight() == "bold"


def test_colours(found):
    """Warm costs the answer and blue is a gain, at one scale that ends beyond the largest number."""
    mesh = figure_map(found).axes[0].collections[0]
    assert mesh.norm.vmax == -mesh.norm.vmin == 9.0
    (red, _, blue), (gain_red, _, gain_blue) = (mesh.cmap(mesh.norm(value))[:3] for value in (3.0, -3.0))
    assert red > blue
    assert gain_blue > gain_red
    # asinh(x / 0.1), so that a tenth of a logit is seen beside nine.
    assert float(mesh.norm(0.1)) == pytest.approx(0.5 + np.arcsinh(1) / np.arcsinh(90) / 2, abs=1e-6)
    lightness = [np.dot(COLOURS(0.5 + share / 2)[:3], [0.3, 0.59, 0.11]) for share in (0, 0.25, 0.5, 0.75, 1)]
    assert lightness == sorted(lightness, reverse=True)
    # In grey a gain is never as dark as half of what is lost, and has its dot besides.
    assert np.dot(COLOURS(0.0)[:3], [0.3, 0.59, 0.11]) > lightness[3]
    assert to_hex(COLOURS(1.0)) == "#7a1c08"


def test_it_names_its_run_and_what_is_read(found):
    figure = figure_map(found)
    line = " ".join(figure.get_suptitle().split())
    assert line.startswith("gpt2 · weights ")
    assert "zero at each token alone · Readout: logit · hydrascope" in line
    assert "prompts" not in line
    key = figure.axes[-1].get_xlabel()
    assert f"“{str(found['target_text'].values).strip()}”: logits lost by ablating there." in key
    assert f"probability {float(found['probability']):.0%}" in key
    low, high = figure.axes[-1].get_xlim()
    assert (low, high) == (-2.0, 9.0)
    ticks = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert (ticks[0], ticks[-1]) == ("−2", "9")
    assert {"−0.3", "0", "0.3", "1", "3"} < set(ticks)


def test_numbers_have_no_exponent_and_0_has_no_sign(found):
    figure = figure_map(found.assign(cost=40 * found["cost"], logit=found["logit"] * 0 - 0.04))
    ticks = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert (ticks[0], ticks[-1]) == ("−80", "360")
    assert not any("e" in tick for tick in ticks)
    assert "Clean: 0.0, probability" in figure.axes[-1].get_xlabel()


@pytest.mark.parametrize("prompt", [[5], [5] * 64])
def test_of_any_length_and_component(prompt):
    model = loaded("gpt2")
    figure = figure_map(hs.analyses.position_map(model, [prompt], components="heads,mlp.1", readout=hs.Placebo(1)))
    figure.draw_without_rendering()
    heads, mlps = figure.axes[:2]
    assert (heads.get_title(loc="left"), mlps.get_title(loc="left")) == ("Heads", "MLPs")
    assert heads.collections[0].get_array().shape == (len(prompt), 12)
    assert len(heads.get_yticklabels()) <= 60
    assert "placebo" in figure.axes[-1].get_xlabel()
