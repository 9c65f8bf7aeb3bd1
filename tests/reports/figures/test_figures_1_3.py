"""Trace one prompt through figures 1 and 3: before and after an ablation, and every patch."""

import numpy as np
import pytest
import synthetic
from drawn_figures import curve, panel, written
from matplotlib.collections import LineCollection

from hydrascope.measures import per_prompt
from hydrascope.reports.figures import figure1, figure3


@pytest.mark.parametrize("draw", [figure1, figure3])
def test_a_trace_shows_before_after_and_every_patch(draw: object) -> None:
    results = synthetic.results(4, 5, 3)
    figure = draw(per_prompt(results), results, 2, "attn.1")  # type: ignore[operator]
    for title, start in (("Attention", 0), ("MLP", 1)):
        axes = panel(figure, title)
        clean = results["unembed"][0, 2, start::2]
        after = results["unembed_ablated_by_patch"][0, 2, 2, :, start::2]
        assert curve(axes, clean)
        assert curve(axes, after.values.astype(np.float64).mean(0))
        faint = next(each for each in axes.collections if isinstance(each, LineCollection))
        np.testing.assert_allclose([segment[:, 1] for segment in faint.get_segments()], after)
        assert faint.get_rasterized()
        assert any(line.get_linestyle() == "--" and set(line.get_xdata()) == {1} for line in axes.get_lines())
    assert "Prompt 2: In 1999" in written(figure)
    assert "each patch" in written(figure)


@pytest.mark.parametrize("draw", [figure1, figure3])
def test_a_trace_of_another_reading(draw: object) -> None:
    results = synthetic.results(4, 5, 3, heads=2, readouts={"logit": -1, "placebo.0": -1, "probe": 3})
    figure = draw(per_prompt(results, "placebo.0", "own"), results, 2, "attn.1")  # type: ignore[operator]
    assert "Readout: placebo.0, at each run’s own σ" in " ".join(figure.get_suptitle().split())
    assert "Direct effect on placebo.0 (logits)" in written(figure)
    assert "target" not in written(figure)
    for title, start in (("Attention", 0), ("MLP", 1)):
        axes = panel(figure, title)
        at_clean = results["unembed_ablated_by_patch"].values[1, 2, 2].astype(np.float64)
        after = (at_clean * results["scale"].values[2, 2, :, None])[:, start:8:2]
        faint = next(each for each in axes.collections if isinstance(each, LineCollection))
        np.testing.assert_allclose([segment[:, 1] for segment in faint.get_segments()], after)
        assert curve(axes, after.mean(0))
    inside = draw(per_prompt(results, "probe", "own"), results, 2, "head.1.1")  # type: ignore[operator]
    assert "Readout: probe, before block 3, without a norm" in " ".join(inside.get_suptitle().split())
    assert "in place of head.1.1" in written(inside) or draw is figure3
    after = results["unembed_ablated_by_patch"].sel(readout="probe", ablated="head.1.1")[2, :, 0:8:2]
    faint = next(each for each in panel(inside, "Attention").collections if isinstance(each, LineCollection))
    np.testing.assert_allclose([segment[:, 1] for segment in faint.get_segments()], after)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"patch_source": "median over prompts"}, {"median over prompts", "patch"}),
        ({"patch_source": ""}, {"zero"}),  # zero ablation alone has no source
        ({}, {"a patch", "patch"}),  # an ablation of the user's own needn't name one
        ({"patch_source": "a" * 30}, {"a" * 15 + "…" + "a" * 8, "patch"}),
    ],
)
def test_figure_1_names_the_source_of_the_patches(source: dict[str, str], expected: set[str]) -> None:
    results = synthetic.results(4, 5, 3)
    del results.attrs["patch_source"]
    results.attrs |= {"ablation": "own", **source}
    drawn = figure1(per_prompt(results), results, 2, "attn.1")
    words = set(written(drawn).split("\n")) & {*expected, "zero", "patch", "a patch"}
    assert words == expected


@pytest.mark.parametrize("draw", [figure1, figure3])
def test_a_trace_without_patches_says_so(draw: object) -> None:
    results = synthetic.results(4, 5, 3, by_patch=False)
    figure = draw(per_prompt(results), results, 2, "attn.1")  # type: ignore[operator]
    axes = panel(figure, "Attention")
    assert curve(axes, results["unembed_ablated"][0, 2, 2, 0::2])
    assert not any(isinstance(each, LineCollection) for each in axes.collections)
    assert "mean of 3 patches (only the mean was kept)" in written(figure)


def test_the_two_panels_of_figure_3_have_their_labels_in_line() -> None:
    results = synthetic.results(4, 6, 2)
    results["unembed"] = results["unembed"].where(results["component_kind"] == "attn", 1000 * results["unembed"])
    figure = figure3(per_prompt(results), results)
    figure.draw_without_rendering()
    places = {round(axes.yaxis.label.get_window_extent().x0) for axes in figure.get_axes()}
    assert len(places) == 1
