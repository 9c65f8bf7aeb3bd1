"""Draw the matrices of heads and of responses, with the bars, names and key beside them."""

import numpy as np
import pytest
import synthetic
from matplotlib.figure import Figure

from hydrascope.measures import Bootstrap, per_prompt
from hydrascope.reports.colour_scale import removal_signs
from hydrascope.reports.figures import figure_heads, figure_responses
from hydrascope.reports.figures.heatmaps import name_columns
from hydrascope.reports.figures.outcome_bars import draw_outcomes

FEW = Bootstrap(resamples=30)


def test_names_along_a_matrix_stand_apart_whatever_the_kinds() -> None:
    layers = [f"{kind}.{block}" for block in range(20) for kind in ("attn", "mlp")]
    axes = Figure().add_subplot()
    name_columns(axes, [*layers, "head.4.0", "head.4.1", "head.4.2"], 16)
    ticks, labels = axes.get_xticks(), [label.get_text() for label in axes.get_xticklabels()]
    assert np.diff(ticks).min() >= 3
    assert len(ticks) <= 16
    assert {"attn.0", "mlp.1", "attn.3", "head.4.0"} <= set(labels)
    name_columns(axes, layers[:16], 16)
    assert len(axes.get_xticks()) == 16


@pytest.mark.parametrize("read_heads", [True, False])
def test_the_heads_are_shown_where_they_stand(read_heads: bool) -> None:
    ablated = ["attn.1", "head.0.0", "head.0.2", "head.2.1", "head.0.0+head.2.1"]
    results = synthetic.results(4, 6, 2, heads=3, ablated=ablated, read_heads=read_heads)
    figure = figure_heads(per_prompt(results))
    images = [image.get_array() for axes in figure.get_axes() for image in axes.get_images()]
    assert len(images) == 1 + read_heads
    for image, name in zip(images, ("total", "unembed"), strict=False):
        assert image.shape == (4, 3)
        for block in range(4):
            for head in range(3):
                label = f"head.{block}.{head}"
                if label not in ablated:
                    assert np.ma.getmaskarray(image)[block, head]
                elif name == "total":
                    lost = -results["total"].sel(ablated=label).values[0].astype(float).mean()
                    # Orange, below 0 on the scale, is what the answer loses.
                    np.testing.assert_allclose(image[block, head], -lost)
                else:
                    direct = results["unembed"].sel(component=label).values[0].astype(float).mean()
                    np.testing.assert_allclose(image[block, head], -direct)


def test_responses_are_shown_where_they_stand() -> None:
    """In the network's order, from below; what can't respond is masked; what isn't sure is 0; blue makes up."""
    results = synthetic.results(3, 40, 2, noise=0.5)
    figure = figure_responses(per_prompt(results), FEW)
    mean, sure = (image.get_array() for axes in figure.get_axes() for image in axes.get_images())
    names = [f"{kind}.{block}" for block in range(3) for kind in ("attn", "mlp")]
    signs = dict(zip(names, removal_signs(per_prompt(results).sel(ablated=names), FEW), strict=True))
    removed = -results["direct"].isel(readout=0).mean(("prompt", "patch"))
    least = 0.01 * float(abs(results["logit"].isel(readout=0)).mean())
    assert all(sign in (0, np.sign(removed.sel(ablated=name))) for name, sign in signs.items())
    assert all(abs(float(removed.sel(ablated=name))) > least for name, sign in signs.items() if sign)
    assert any(signs.values())
    assert mean.shape == sure.shape == (6, 6)
    for row, ablated in enumerate(names):
        for column, component in enumerate(names):
            if not results["downstream"].sel(ablated=ablated, component=component):
                assert np.ma.getmaskarray(mean)[row, column]
                assert np.ma.getmaskarray(sure)[row, column]
                continue
            at = {"component": component}
            moved = results["unembed_ablated"].sel(ablated=ablated, **at) - results["unembed"].sel(**at)
            values = moved.isel(readout=0).values.astype(float)
            values *= signs[ablated] or 1
            np.testing.assert_allclose(mean[row, column], values.mean(), rtol=1e-5, atol=1e-6)
            # Far from 0 is sure; within two standard errors of it is not, since many are looked at.
            far = abs(values.mean()) / (values.std() / np.sqrt(len(values)))
            if far > 6:
                np.testing.assert_allclose(sure[row, column], values.mean(), rtol=1e-5)
            if far < 2:
                assert sure[row, column] == 0


def test_bars_beside_the_responses_are_what_is_removed_and_lost() -> None:
    results = synthetic.results(3, 40, 2, noise=0.5)
    figure = figure_responses(per_prompt(results), FEW)
    (beside,) = (axes for axes in figure.get_axes() if axes.containers)
    names = [f"{kind}.{block}" for block in range(3) for kind in ("attn", "mlp")]
    for bars, effect, side in zip(beside.containers, ("direct", "total"), (1, -1), strict=True):
        means = -results[effect].isel(readout=0).astype(float).mean(("prompt", "patch")).sel(ablated=names).values
        np.testing.assert_allclose([bar.get_width() for bar in bars], means, rtol=1e-6)
        middles = [bar.get_y() + bar.get_height() / 2 for bar in bars]
        np.testing.assert_allclose(middles, np.arange(6) + 0.2 * side)
    assert beside.get_xlabel() == "logits"
    assert [text.get_text() for text in beside.get_legend().get_texts()] == ["removed", "lost"]


def test_bars_beyond_the_axis_end_in_a_triangle_with_the_number() -> None:
    removed, lost = np.full(40, 0.3), np.full(40, -0.1)
    removed[4], lost[7] = -2.04, 8.66
    axes = Figure().subplots()
    draw_outcomes(axes, removed, lost)
    assert [bars[row].get_width() for bars, row in zip(axes.containers, (4, 7), strict=True)] == [-0.3, 0.3]
    assert {(text.get_text(), text.get_position()[1]) for text in axes.texts} == {("−2.0", 4.2), ("8.7", 6.8)}
    marks = {(line.get_marker(), *line.get_xydata()[0]) for line in axes.lines if len(line.get_xydata()) == 1}
    assert marks == {("<", -0.3, 4.2), (">", 0.3, 6.8)}
    assert all(-0.3 <= tick <= 0.3 for tick in axes.get_xticks())


def test_the_key_stands_in_the_empty_corner_of_a_deep_network() -> None:
    deep = figure_responses(per_prompt(synthetic.results(10, 20, 1)), FEW)
    (matrix, _) = (axes for axes in deep.get_axes() if axes.get_images())
    (key,) = matrix.child_axes
    deep.draw_without_rendering()
    shape = matrix.get_images()[0].get_array()
    (left, low), (right, high) = matrix.transData.inverted().transform(key.get_tightbbox().get_points())
    assert (left, high) > (-0.5, low)
    assert high <= 19.5
    assert np.ma.getmaskarray(shape)[round(low) :, : round(right) + 1].all()
    shallow = figure_responses(per_prompt(synthetic.results(3, 20, 1)), FEW)
    assert not any(axes.child_axes for axes in shallow.get_axes())
