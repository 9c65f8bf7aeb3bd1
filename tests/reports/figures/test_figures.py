"""Figures: they show the numbers of the results, from the smallest network to a large one, and stay small files."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import synthetic
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text

from hydrascope.measures import (
    Bootstrap,
    best_sublayer,
    candidates,
    compensation,
    compensation_regression,
    direct_effect,
    most_restored,
    per_prompt,
    regression,
)
from hydrascope.reports.colour_scale import removal_signs
from hydrascope.reports.figures import (
    examples,
    figure1,
    figure2,
    figure3,
    figure7,
    figure8,
    figure_heads,
    figure_responses,
)
from hydrascope.reports.figures.figure7 import _equation
from hydrascope.reports.figures.figures_1_3 import why_chosen
from hydrascope.reports.figures.heatmaps import name_columns
from hydrascope.reports.figures.outcome_bars import draw_outcomes
from hydrascope.reports.figures.panels import printable
from hydrascope.reports.figures.style import save
from hydrascope.reports.kinds import draw_all
from hydrascope.utils.errors import HydrascopeError

FEW = Bootstrap(resamples=30)


def panel(figure: Figure, title: str) -> Axes:
    """The panel whose title, in the middle or at the left, begins like this."""
    found = [
        axes for axes in figure.get_axes() if axes.get_title().startswith(title) or axes.get_title(loc="left") == title
    ]
    assert found, [axes.get_title() for axes in figure.get_axes()]
    return found[0]


def curve(axes: Axes, values: xr.DataArray | np.ndarray) -> bool:
    """Whether `axes` has a line through these values."""
    wanted = np.asarray(values)
    return any(
        len(line.get_ydata()) == len(wanted) and np.allclose(line.get_ydata(), wanted, equal_nan=True)
        for line in axes.get_lines()
    )


def points(axes: Axes) -> np.ndarray:
    """All points of a panel, sorted."""
    offsets = [each.get_offsets() for each in axes.collections if isinstance(each, PathCollection)]
    found = np.concatenate([np.asarray(each) for each in offsets])
    return found[np.lexsort(found.T)]


def written(figure: Figure) -> str:
    """All text of a figure."""
    found = [text.get_text() for text in figure.findobj(Text)]
    legends = [text.get_text() for each in figure.findobj(Legend) for text in each.get_texts()]
    return "\n".join(found + legends)


def in_order(x: xr.DataArray, y: xr.DataArray) -> np.ndarray:
    pairs = np.stack([x.values.ravel(), y.values.ravel()], axis=1)
    return pairs[np.lexsort(pairs.T)]


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


def test_the_default_examples_are_typical_of_the_sublayer_of_which_most_is_restored() -> None:
    results = synthetic.results(6, 31, 2)
    effects = per_prompt(results)
    samples = candidates(effects, "attn")
    best = str(samples["ablated"].values[int(most_restored(samples).values.argmax())])
    one = samples.sel(ablated=best)
    large = (one["removed"] > one["removed"].median()).values
    share = (one["restored"] / one["removed"]).values
    near = np.where(large, abs(share - np.median(share[large])), np.inf)
    first, second = examples(effects)
    assert first == (near.argmin(), best)
    assert second == (np.argsort(near)[1], best)


def test_where_nothing_removes_enough_the_examples_have_the_largest_direct_effects() -> None:
    results = synthetic.results(5, 12, 2)
    results["logit"] = results["logit"] + 1e6
    direct = direct_effect(per_prompt(results)).isel(ablated=slice(0, None, 2)).values
    best = np.unravel_index(direct.argmax(), direct.shape)
    first, second = examples(per_prompt(results))
    assert first == (best[0], f"attn.{best[1]}")
    others = np.delete(np.arange(12), best[0])
    assert second[0] in others
    assert results["unembed"].sel(component=second[1])[0, second[0]] == direct[others].max()


def test_examples_are_of_a_kind_of_which_something_is_restored() -> None:
    results = synthetic.results(4, 31, 2)
    assert examples(per_prompt(results))[0][1].startswith("attn")
    # Of what attention removes twice as much is lost, of what MLPs remove half.
    attention = results["ablated_kind"] == "attn"
    results["direct"] = results["direct"].where(attention, results["direct"] - 2)
    results["total"] = results["direct"] * xr.where(attention, 2, 0.5)
    (_, first), (_, second) = examples(per_prompt(results))
    assert first.startswith("mlp")
    assert second == first
    assert why_chosen(per_prompt(results), first) == "chosen as a typical example of what is restored"


@pytest.mark.slow
def test_why_an_example_was_chosen_is_so(tmp_path: Path) -> None:
    results = synthetic.results(4, 31, 2)
    results["total"] = 2 * results["direct"]
    part = examples(per_prompt(results))[0][1]
    assert why_chosen(per_prompt(results), part) == "chosen as a typical example; on average nothing is restored"
    results["logit"] = results["logit"] + 1e6
    part = examples(per_prompt(results))[0][1]
    assert why_chosen(per_prompt(results), part) == "chosen for its large direct effect"
    draw_all(results, tmp_path)
    for name in ("figure1", "figure3"):
        assert "Chosen for its large direct effect" in (tmp_path / f"{name}.svg").read_text()


def test_where_nothing_is_removed_directly_the_examples_are_those_that_lose_most() -> None:
    results = synthetic.results(4, 12, 2, heads=2)
    results["direct"] = xr.zeros_like(results["direct"])
    lost = -results["total"].isel(readout=0).mean("patch").sel(ablated=[f"attn.{block}" for block in range(4)])
    prompt, part = np.unravel_index(lost.values.argmax(), lost.shape)
    assert examples(per_prompt(results))[0] == (prompt, f"attn.{part}")
    assert why_chosen(per_prompt(results), f"attn.{part}") == "chosen for how much is lost without it"
    assert "Direct effect, Δ unembed" not in [axes.get_title() for axes in figure_heads(per_prompt(results)).get_axes()]


def test_what_is_named_is_kept_and_the_rest_differs() -> None:
    results = synthetic.results(4, 6, 2)
    effects = per_prompt(results)
    assert examples(effects, 3, "mlp.2") == ((3, "mlp.2"), (3, "mlp.2"))
    (p1, k1), (p2, k2) = examples(effects, prompt=3)
    assert p1 == p2 == 3
    assert k1 != k2
    (p1, k1), (p2, k2) = examples(effects, ablated="mlp.1")
    assert k1 == k2 == "mlp.1"
    assert p1 != p2
    assert examples(per_prompt(results.isel(prompt=[0], ablated=[4]))) == ((0, "attn.2"), (0, "attn.2"))


def test_a_component_with_nothing_downstream_can_be_named() -> None:
    results = synthetic.results(4, 6, 2)
    effects = per_prompt(results)
    (p1, k1), (p2, k2) = examples(effects, ablated="mlp.3")
    assert k1 == k2 == "mlp.3"
    strongest = abs(direct_effect(effects).sel(ablated="mlp.3")).argsort()
    assert [p1, p2] == strongest.values[::-1][:2].tolist()


def test_an_unknown_prompt_or_component_is_refused() -> None:
    results = synthetic.results(4, 6, 2)
    effects = per_prompt(results)
    with pytest.raises(HydrascopeError, match="prompts 0 to 5"):
        examples(effects, prompt=6)
    with pytest.raises(HydrascopeError, match="prompts 0 to 5"):
        examples(effects, prompt=-1)
    with pytest.raises(HydrascopeError, match=r"attn\.9 isn't among"):
        examples(effects, ablated="attn.9")


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


def test_the_two_panels_of_figure_3_have_their_labels_in_line() -> None:
    results = synthetic.results(4, 6, 2)
    results["unembed"] = results["unembed"].where(results["component_kind"] == "attn", 1000 * results["unembed"])
    figure = figure3(per_prompt(results), results)
    figure.draw_without_rendering()
    places = {round(axes.yaxis.label.get_window_extent().x0) for axes in figure.get_axes()}
    assert len(places) == 1


def test_figure_2_shows_every_prompt_the_mean_and_the_agreement() -> None:
    results = synthetic.results(4, 9, 2)
    effects = per_prompt(results)
    figure = figure2(effects, FEW)
    direct, lost = direct_effect(effects), -effects["total"]
    axes = figure.get_axes()
    for values, first in ((direct, 0), (lost, 2)):
        for k in (0, 1):
            part = values[:, k::2]
            assert curve(axes[first + k], part.mean("prompt"))
            faint = next(each for each in axes[first + k].collections if isinstance(each, LineCollection))
            np.testing.assert_allclose([segment[:, 1] for segment in faint.get_segments()], part)
    np.testing.assert_allclose(points(panel(figure, "c")), in_order(direct, lost))
    d, e = panel(figure, "d"), panel(figure, "e")
    for a in (0, 1):
        exceeding = (direct[:, a::2] > lost[:, a::2]).mean("prompt")
        assert curve(e, exceeding)
        r = [np.corrcoef(direct[:, i], lost[:, i])[0, 1] for i in range(a, 8, 2)]
        assert curve(d, np.array(r))


def test_figure_7_shows_all_sublayers_the_best_and_the_regression() -> None:
    results = synthetic.results(4, 15, 2)
    effects = per_prompt(results)
    figure = figure7(effects, FEW)
    direct, response = direct_effect(effects), compensation(effects)["compensation"]
    np.testing.assert_allclose(points(panel(figure, "a")), in_order(direct[:, ::2], response[:, ::2]))
    # Nothing is downstream of the last MLP.
    np.testing.assert_allclose(points(panel(figure, "c")), in_order(direct[:, 1:-1:2], response[:, 1:-1:2]))
    fit = compensation_regression(effects, FEW).sel(bound="estimate")
    assert curve(panel(figure, "d"), fit["slope"][::2])
    explained = next(axes for axes in figure.get_axes() if axes.get_ylabel() == "R²")
    for start in (0, 1):
        assert curve(panel(figure, "d"), fit["slope"][start::2])
        assert curve(explained, fit["r2"][start::2])
    best = best_sublayer(effects, "either")
    assert best is not None
    b = panel(figure, "b")
    assert b.get_title().startswith(best)
    np.testing.assert_allclose(points(b), in_order(direct.sel(ablated=best), response.sel(ablated=best)))


def test_figure_8_shows_both_terms_of_the_response() -> None:
    results = synthetic.results(4, 15, 2)
    effects = per_prompt(results)
    figure = figure8(effects, FEW)
    direct, response = direct_effect(effects), compensation(effects)
    # Nothing is downstream of the last MLP.
    for label in (*(f"attn.{block}" for block in range(4)), *(f"mlp.{block}" for block in range(3))):
        axes = panel(figure, f"{label} ablated")
        x, both = direct.sel(ablated=label), [response[name].sel(ablated=label) for name in ("attention", "mlp")]
        np.testing.assert_allclose(points(axes), in_order(xr.concat([x, x], "prompt"), xr.concat(both, "prompt")))
    slopes = [axes for axes in figure.get_axes() if axes.get_title() in ("Attention ablated", "MLP ablated")]
    explained = [axes for axes in figure.get_axes() if axes.get_xlabel().startswith("Block of the ablated")]
    explained = [axes for axes in explained if axes.get_ylim() == (-0.03, 1.03)]
    for chosen, slope, share in zip((slice(0, 8, 2), slice(1, 7, 2)), slopes, explained, strict=True):
        for name in ("attention", "mlp"):
            fit = regression(direct[:, chosen], response[name][:, chosen], FEW).sel(bound="estimate")
            assert curve(slope, fit["slope"])
            assert curve(share, fit["r2"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "prompts", "patches", "options"),
    [
        (1, 1, 1, {}),
        (2, 2, 1, {"ablated": ["attn.0", "attn.1"]}),
        (3, 4, 2, {"ablated": ["mlp.0", "mlp.2"], "parallel": True}),
        (3, 5, 2, {"ablated": ["mlp.2"]}),
        (3, 4, 2, {"noise": 0, "patch_noise": 0}),
        (48, 3, 2, {}),
        (3, 4, 2, {"heads": 2, "read_heads": False}),
        (3, 4, 2, {"readouts": {"probe": 2}, "ablated": ["attn.0", "attn.2"]}),
    ],
)
def test_every_size_is_drawn_without_a_warning(layers: int, prompts: int, patches: int, options: dict) -> None:
    results = synthetic.results(layers, prompts, patches, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        effects = per_prompt(results)
        for draw in (figure2, figure7, figure8):
            draw(effects).canvas.draw()
        for trace in (figure1, figure3):
            trace(effects, results).canvas.draw()


@pytest.mark.slow
def test_drawn_files_are_small_reproducible_and_keep_their_text(tmp_path: Path) -> None:
    results = synthetic.results(6, 400, 2)
    effects = per_prompt(results)
    paths = save(figure7(effects, FEW), tmp_path / "a", "figure7")
    again = save(figure7(effects, FEW), tmp_path / "b", "figure7")
    assert [path.suffix for path in paths] == [".png", ".pdf", ".svg"]
    assert all(path.stat().st_size < 2_000_000 for path in paths)
    assert paths[0].read_bytes() == again[0].read_bytes()
    assert "Compensatory effect (logits)" in paths[2].read_text()


@pytest.mark.slow
def test_draw_all_writes_seven_figures_in_three_formats(tmp_path: Path) -> None:
    results = synthetic.results(2, 4, 2)
    drawn = draw_all(results, tmp_path, prompt=1, ablated="attn.0")
    assert sorted(path.name for path in drawn.paths) == sorted(
        f"{name}.{suffix}"
        for name in ("flow", "responses", *(f"figure{number}" for number in (1, 2, 3, 7, 8)))
        for suffix in ("png", "pdf", "svg")
    )
    assert all(path.stat().st_size for path in drawn.paths)
    assert str(drawn) == f"21 files and captions.md in {tmp_path}"


@pytest.mark.slow
@pytest.mark.usefixtures("one_format")
@pytest.mark.parametrize(
    ("ablated", "names", "reason"),
    [
        (
            ["head.0.1", "head.1.0"],
            "figure1 figure3 flow heads responses",
            "figures 2, 7 and 8, which show ablated sublayers",
        ),
        (["attn.0", "head.1.0"], "figure1 figure2 figure3 figure7 figure8 flow heads responses", None),
        (["attn.0", "attn.0+mlp.1"], "figure1 figure2 figure3 figure7 figure8 responses", "the repair flow"),
    ],
)
def test_draw_all_draws_what_the_run_has(tmp_path: Path, ablated: list[str], names: str, reason: str | None) -> None:
    results = synthetic.results(2, 4, 2, heads=2, ablated=ablated, by_patch=False)
    drawn = draw_all(results, tmp_path, sigma="own")
    assert sorted({path.stem for path in drawn.paths}) == names.split()
    assert len(drawn.skipped) == (reason is not None)
    assert reason is None or f"\nleft out: {reason}" in str(drawn)


@pytest.mark.usefixtures("one_format")
def test_of_joint_ablations_the_responses_are_drawn(tmp_path: Path) -> None:
    results = synthetic.results(2, 4, 2, ablated=["attn.0+mlp.1"])
    drawn = draw_all(results, tmp_path)
    assert {path.stem for path in drawn.paths} == {"responses"}
    assert [why.split(",")[0] for why in drawn.skipped] == ["figures 1 and 3", "figures 2", "the repair flow"]
    effects = per_prompt(results)
    for trace in (figure1, figure3):
        with pytest.raises(HydrascopeError, match="the ablation of one component"):
            trace(effects, results)
    for draw in (figure2, figure7, figure8):
        with pytest.raises(HydrascopeError, match="show ablated sublayers, and this run ablated none"):
            draw(effects)
    with pytest.raises(HydrascopeError, match="this run ablated none: ablate heads"):
        figure_heads(effects)


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


def test_a_slope_that_rounds_to_0_has_no_sign() -> None:
    line = xr.Dataset(
        {"slope": ("bound", [-0.004, -0.012, 0.002]), "r2": ("bound", [0.25, 0.1, 0.3])},
        {"bound": ["estimate", "low", "high"]},
    )
    assert _equation(line) == "slope 0.00 [−0.01, 0.00], R² = 0.25"
    line["slope"][1:] = np.nan
    assert _equation(line) == "slope 0.00, R² = 0.25"


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


def test_a_direction_s_unit_stands_at_the_axes() -> None:
    results = synthetic.results(3, 8, 2, readouts={"probe": -1})
    results.attrs["units"] = "unit of the readout"
    effects = per_prompt(results)
    for draw in (figure2, figure7, figure8, figure_responses):
        figure = draw(effects, FEW)
        assert "logits" not in written(figure)
        assert "(unit of the readout)" in written(figure).replace("\n", " ")


def test_figures_name_their_reading() -> None:
    results = synthetic.results(3, 6, 2, heads=2, readouts={"difference": -1})
    effects = per_prompt(results, sigma="own")
    for figure in (
        figure1(effects, results),
        figure3(effects, results),
        figure2(effects, FEW),
        figure7(effects, FEW),
        figure8(effects, FEW),
        figure_heads(effects),
        figure_responses(effects, FEW),
    ):
        assert figure.get_suptitle().startswith("synthetic · ")
        assert "Readout: difference, at each run’s own σ" in " ".join(figure.get_suptitle().split())


def test_draw_all_refuses_an_unfinished_result(tmp_path: Path) -> None:
    results = synthetic.results(2, 4, 2)
    results["total"][0, 3:] = np.nan
    with pytest.raises(HydrascopeError, match="1 of 4 prompts"):
        draw_all(results, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("costs $5 or $6_2^", "costs $5 or $6_2^"),
        ("two\nlines\tand\r\nmore", "two⏎lines and⏎more"),
        ("東京 is", "□□ is"),
        ("null\x00 bell\x07", "null□ bell□"),
        ("Zürich, Łódź, Ελλάδα, Москва", "Zürich, Łódź, Ελλάδα, Москва"),
    ],
)
def test_text_that_is_safe_to_draw(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_long_text_loses_its_middle() -> None:
    shown = printable("A" * 50 + " " + "B" * 50, 30)
    assert len(shown) <= 30
    assert shown.startswith("AAA")
    assert shown.endswith("BBB")
    assert "…" in shown


@pytest.mark.usefixtures("one_format")
def test_figures_of_direct_effects_are_left_out_where_there_are_none(tmp_path: Path) -> None:
    results = synthetic.results(4, prompts=12)
    results["direct"] = 0 * results["direct"]
    drawn = draw_all(results, tmp_path)
    assert {path.stem for path in drawn.paths} == {"responses", "figure1", "figure3"}
    assert "figures 2, 7 and 8" in drawn.skipped[0]
