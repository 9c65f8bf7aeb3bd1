"""Axes show most values; what lies beyond is marked with a number, and nothing meaningless is drawn."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import synthetic
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

import hydrascope as hs
from hydrascope.measures import Bootstrap, best_sublayer, compensation_regression, direct_effect, per_prompt
from hydrascope.reports.figures import (
    figure2,
    figure7,
    figure8,
    figure_heads,
    figure_mediation,
    figure_responses,
)
from hydrascope.reports.figures.comparison import figure_comparison
from hydrascope.reports.figures.limits import clip_points, draw_slopes, informative, slope_limits
from hydrascope.reports.figures.panels import block_axis
from hydrascope.reports.kinds import draw_all
from hydrascope.reports.summary.comparison import compare

FEW = Bootstrap(resamples=30)


@pytest.fixture(scope="module")
def mediated() -> xr.Dataset:
    """A mediation of two sublayers of the phantom by all sublayers."""
    ablate = hs.Mediation("attn.1,mlp.2", "layers")
    return hs.sweep(hs.load_model("phantom"), hs.load_prompts("phantom").limit(8), hs.Zero(), ablate=ablate)


def texts(shown: Figure | Axes) -> list[str]:
    return [text.get_text() for text in shown.findobj(Text) if text.get_text()]


def panel(figure: Figure, letter: str) -> Axes:
    return next(axes for axes in figure.get_axes() if axes.get_title(loc="left") == letter)


def test_an_axis_shows_nine_groups_in_ten_and_all_if_that_costs_little() -> None:
    values = np.tile(np.linspace(-1, 1, 201)[:, None], (1, 20))
    assert informative(values) == pytest.approx((-1.1, 1.1))
    values[:, 3] *= 1.2  # barely more room
    assert informative(values) == pytest.approx((-1.32, 1.32))
    values[:, 3] *= 10
    assert informative(values)[1] == pytest.approx(1.1, abs=0.02)
    assert informative(values, [5.0])[1] > 5
    values[0, 5] = np.nan
    values[:, 7] = np.nan
    assert np.isfinite(informative(values)).all()
    assert informative(np.full((3, 2), np.nan), ()) == (-0.05, 1.05)
    assert informative(np.zeros((3, 2))) == (-0.5, 0.5)
    assert informative(np.r_[np.zeros(19), 10.0][None]) == pytest.approx((-0.5, 10.5))


def test_points_beyond_are_counted_with_the_furthest() -> None:
    axes = Figure().subplots()
    x, y = np.array([0.0, 5.0, 0.5, -20.0, np.nan]), np.array([3.0, 0.5, 70.4, 0.1, 99.0])
    clip_points(axes, x, y, (0, 1), (0, 1))
    assert {"▲ 2 to 70", "◀ 1 to −20", "▶ 1 to 5.0"} <= set(texts(axes))
    assert not any("▼" in text for text in texts(axes))
    marks = {line.get_marker(): line.get_xydata() for line in axes.get_lines()}
    np.testing.assert_array_equal(marks["^"], [[0, 1], [0.5, 1]])
    np.testing.assert_array_equal(marks["<"], [[0, 0.1]])
    np.testing.assert_array_equal(marks[">"], [[1, 0.5]])


def test_a_number_at_the_edge_that_rounds_to_0_has_no_sign() -> None:
    axes = Figure().subplots()
    clip_points(axes, np.array([-0.04, 0.5]), np.array([0.5, 0.5]), (0, 1), (0, 1))
    assert "◀ 1 to 0.0" in texts(axes)


def test_one_wild_slope_leaves_the_axis_and_has_its_value() -> None:
    axes = Figure().subplots()
    block_axis(axes, 6)
    slopes = np.array([-11.2, 0.5, 0.8, 0.7, 4.84, 0.9])
    limits = slope_limits(slopes)
    draw_slopes(axes, range(6), np.stack([slopes, slopes - 0.1, slopes + 0.1]), limits, "#0072B2")
    assert -1.5 < limits[0] < -1
    assert 2 < limits[1] < 2.5
    line = axes.get_lines()[0].get_ydata()
    np.testing.assert_array_equal(line, [np.nan, 0.5, 0.8, 0.7, np.nan, 0.9])
    assert {"−11", "4.8"} <= set(texts(axes))
    marks = {each.get_marker(): each.get_xydata().tolist() for each in axes.get_lines()[1:]}
    assert marks == {"v": [[0, limits[0]]], "^": [[4, limits[1]]]}


def test_numbers_of_two_colours_at_one_block_do_not_touch() -> None:
    figure = Figure(figsize=(3, 2), layout="constrained")
    axes = figure.subplots()
    block_axis(axes, 30)
    for colour, slope in (("#0072B2", 7.1), ("#D55E00", 3.2)):
        values = np.r_[slope, np.ones(29)]
        draw_slopes(axes, range(30), np.stack([values] * 3), slope_limits(values), colour)
    figure.draw_without_rendering()
    first, second = (text.get_window_extent() for text in axes.texts)
    assert not first.overlaps(second)


def with_a_compensated_mlp(results: xr.Dataset) -> xr.Dataset:
    """`mlp.1` writes for the answer, each prompt another amount, and `mlp.3` makes up for 0.9 of it."""
    results, amount = results.copy(deep=True), np.random.default_rng(0).gamma(2, 5, results.sizes["prompt"])
    results["unembed"].loc[{"component": "mlp.1"}] += amount
    results["direct"].loc[{"ablated": "mlp.1"}] -= amount[:, None]
    for name, axes in (("unembed_ablated", 1), ("unembed_ablated_by_patch", 2)):
        spread = amount.reshape(-1, *[1] * axes)
        results[name].loc[{"component": "mlp.1"}] += spread
        results[name].loc[{"component": "mlp.3", "ablated": "mlp.1"}] += 0.9 * spread[..., 0]
    return results


@pytest.mark.parametrize("compensated", [False, True])
def test_the_best_sublayer_is_of_either_kind(compensated: bool) -> None:
    results = synthetic.results(4, 40, 2)
    effects = per_prompt(with_a_compensated_mlp(results) if compensated else results)
    fit = compensation_regression(effects, FEW).sel(bound="estimate")
    r2 = fit["r2"].where(fit["slope"] > 0).fillna(0)
    removed = -effects["direct"].mean("prompt")
    large = removed > 0.01 * float(abs(effects["logit"]).mean())
    expected = str(r2.where(large.values, 0).idxmax("ablated").values)
    assert expected.startswith("mlp" if compensated else "attn")
    assert best_sublayer(effects, "either") == expected
    figure = figure7(effects, FEW)
    assert f"{expected}: highest R²" in texts(figure)
    assert f"{expected}: highest R²" in texts(figure)
    shown = {text for text in texts(figure8(effects, FEW)) if text.endswith("highest R²")}
    best = [best_sublayer(effects, kind) for kind in ("attn", "mlp")]
    assert shown == {f"{label} ablated, highest R²" for label in best if label}
    assert f"{expected} ablated, highest R²" in shown


def test_lines_are_drawn_only_where_the_slope_is_surely_not_0() -> None:
    results = synthetic.results(5, 12, 2, noise=3.0)
    effects = per_prompt(results)
    slope = compensation_regression(effects, FEW)["slope"]
    sure = (slope.sel(bound="low") > 0) | (slope.sel(bound="high") < 0)
    figure = figure7(effects, FEW)
    for letter, start in (("a", 0), ("c", 1)):
        lines = [line for line in panel(figure, letter).get_lines() if line.get_linewidth() == 0.9]
        assert len(lines) == int(sure[start::2].sum())
    assert 0 < int(sure.sum()) < 9


def test_outliers_do_not_flatten_figure_2() -> None:
    results = synthetic.results(20, 200, 1)
    effects = per_prompt(results)
    results["unembed"][0, 7, 6] = 500.0
    wild = per_prompt(results)
    for each in (effects, wild):
        figure = figure2(each, FEW)
        a, b = panel(figure, "a"), panel(figure, "b")
        assert a.get_ylim() == b.get_ylim()
        assert a.get_ylim()[1] < 40
        means = direct_effect(each).mean("prompt")
        assert a.get_ylim()[0] < float(means.min())
        assert a.get_ylim()[1] > float(means.max())
    assert "500" in texts(a)


@pytest.mark.slow
@pytest.mark.usefixtures("one_format")
def test_of_a_single_prompt_nothing_meaningless_is_drawn(tmp_path: Path) -> None:
    results = synthetic.results(4, 1, 2, heads=2)
    effects = per_prompt(results)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hydrascope.reports.figures.style.FORMATS", ("svg",))
        draw_all(results, tmp_path / "svg")
    assert "chosen" not in (tmp_path / "svg" / "figure1.svg").read_text()
    drawn = draw_all(results, tmp_path)
    assert "figure8" not in {path.stem for path in drawn.paths}
    assert "left out: figure 8, which regresses over prompts: this takes 3 prompts or more" in str(drawn)
    seven, two, responses = figure7(effects), figure2(effects), figure_responses(effects)
    for figure in (seven, two):
        assert any("needs\n3 prompts" in text for text in texts(figure))
    assert not any("R²" in text or "chosen" in text or "surely" in text for text in texts(seven))
    assert "Surely not 0" not in texts(responses)
    assert len([axes for axes in responses.get_axes() if axes.get_images()]) == 1
    assert any("On one prompt" in text for text in texts(figure_heads(effects)))
    pair = per_prompt(synthetic.results(4, 2, 2))
    assert any("needs\n3 prompts" in text for text in texts(figure7(pair)))


def test_a_comparison_names_what_0_and_1_mean_and_what_is_beyond() -> None:
    results = synthetic.results(6, 30, 1)
    wild = results.copy(deep=True)
    wild["total"].loc[{"ablated": "attn.3"}] = 7 * wild["direct"].sel(ablated="attn.3")
    comparison = compare({"calm": results, "wild": wild}, FEW)
    figure = figure_comparison(comparison)
    share = float(comparison.over_depth["wild", "attn"].sel(ablated="attn.3", bound="estimate"))
    assert share == pytest.approx(-6)
    said = texts(figure)
    assert {"none", "all restored", "−6.0", "below −1"} <= set(said)
    assert all(axes.get_ylim()[0] >= -1.1 for axes in figure.get_axes())
    colours = {text.get_text(): to_hex(text.get_color()) for text in figure.findobj(Text)}
    assert colours["−6.0"] == "#d55e00"


def test_labels_of_a_mediation_stand_apart_and_inside(mediated: xr.Dataset) -> None:
    figure = figure_mediation(mediated)
    figure.draw_without_rendering()
    width, height = figure.get_size_inches() * figure.dpi
    for axes in figure.get_axes():
        boxes = [each.get_window_extent() for each in axes.get_xticklabels() if each.get_text()]
        assert all(one.x1 < other.x0 for one, other in pairwise(boxes))
        label = axes.yaxis.label.get_window_extent()
        assert label.y0 >= 0
        assert label.y1 <= height
        assert label.x1 <= width


def test_a_mediation_leaves_out_what_is_downstream_of_nothing(mediated: xr.Dataset) -> None:
    figure = figure_mediation(mediated)
    names = {text.get_text() for text in figure.get_axes()[0].get_xticklabels()}
    assert "mlp.1" in names
    assert not names & {"attn.0", "mlp.0", "attn.1"}
    columns = figure.get_axes()[0].get_images()[0].get_array().shape[1]
    assert columns == len(hs.load_model("phantom").sublayers) - 3  # attn.0, mlp.0, attn.1
