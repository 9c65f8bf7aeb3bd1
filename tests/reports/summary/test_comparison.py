"""Results side by side: paired where the prompts are the same, and what else differs is said."""

import io

import numpy as np
import pytest
import synthetic
import xarray as xr
from rich.console import Console
from typer.testing import CliRunner

import hydrascope as hs
from hydrascope.cli.app import app
from hydrascope.measures import Bootstrap, candidates, held_out, most_restored, per_prompt
from hydrascope.reports.figures.comparison import figure_comparison
from hydrascope.reports.summary.comparison import compare
from hydrascope.reports.summary.terminal import side_by_side
from hydrascope.utils.errors import HydrascopeError

FEW = Bootstrap(resamples=200)


def held_share(results):
    """The share restored at the component that was chosen on the other half, by hand."""
    held = held_out(candidates(per_prompt(results), "attn"), most_restored)
    return float(held.samples["restored"].sum() / held.samples["removed"].sum())


def test_a_result_beside_itself_does_not_differ():
    results = synthetic.results(4, 40, 2)
    found = compare({"a": results, "b": results}, FEW)
    assert found.paired == {"b": True}
    assert not found.warnings
    rows = {(row.name, row.verdict.kind): row for row in found.rows}
    same = rows["b", "attn"].restored
    assert (same.estimate, same.low, same.high) == (0, 0, 0)
    assert rows["a", "attn"].verdict == rows["b", "attn"].verdict
    assert np.isnan(rows["a", "attn"].restored.estimate)


@pytest.mark.slow
def test_a_share_of_two_components_is_said_to_be_of_neither():
    one = synthetic.results(4, 40, 2)
    two = synthetic.results(4, 40, 2, seed=2, shares=np.zeros((8, 8)))
    neither = "where the halves chose two components, over both, pooled, and of neither alone"
    assert neither in told(compare({"a": one, "b": two}, FEW))
    assert neither not in told(compare({"a": one, "b": one}, FEW))


def told(comparison):
    console = Console(file=io.StringIO(), width=400)
    console.print(side_by_side(comparison))
    return console.file.getvalue()


@pytest.mark.slow
def test_paired_differences_are_narrower():
    """Where prompts differ much and both results with them, pairing takes that out."""
    first = synthetic.results(6, 60, 2, seed=1)
    second = first.copy(deep=True)
    second["total"] = first["total"] - 0.1 * first["direct"]
    paired = compare({"a": first, "b": second}, FEW).rows
    second["text"] = second["text"].copy(data=second["text"].values[::-1])
    unpaired = compare({"a": first, "b": second}, FEW)
    assert "unpaired" in unpaired.warnings[0]
    wide, narrow = (
        next(row.restored for row in rows if row.name == "b" and row.verdict.kind == "attn")
        for rows in (unpaired.rows, paired)
    )
    assert narrow.estimate == pytest.approx(held_share(second) - held_share(first))
    assert wide.estimate == pytest.approx(narrow.estimate)
    assert narrow.high - narrow.low < wide.high - wide.low


def test_a_share_of_what_may_be_nothing_has_no_difference():
    sure = synthetic.results(4, 20, 1, ablated=["attn.1"], noise=0, patch_noise=0)
    unsure = sure.copy(deep=True)
    spread = np.random.default_rng(0).standard_normal(20)
    removed = (0.02 + 0.1 * (spread - spread.mean())) * float(abs(sure["logit"]).mean())
    for name, share in (("direct", -1.0), ("total", -0.5)):
        unsure[name] = (sure[name].dims, share * removed[None, :, None, None])
    found = compare({"a": sure, "b": unsure}, FEW)
    row = next(row for row in found.rows if row.name == "b")
    assert row.verdict.component == "attn.1"
    assert np.isnan(row.verdict.restored.low)
    assert np.isnan(row.restored.estimate)
    line = next(line for line in told(found).splitlines() if line.startswith("│b"))
    assert [cell.strip() for cell in line.split("│")[3:-1]] == ["can't tell", "attn.1", "–", "–"]


def test_what_differs_besides_is_said():
    first, second = synthetic.results(4, 40, 2), synthetic.results(5, 40, 2)
    first.attrs |= {"ablation": "resample", "dtype": "float32"}
    second.attrs |= {"ablation": "zero", "dtype": "float32"}
    found = " ".join(compare({"a": first, "b": second}, FEW).warnings)
    assert "the ablations differ: a resample, b zero" in found
    assert "the numbers of blocks differ (a 4, b 5): depths are relative" in found
    assert "dtype" not in found


def test_depth_is_relative():
    found = compare({"a": synthetic.results(4, 40, 2), "b": synthetic.results(5, 40, 2)}, FEW)
    for (name, kind), shares in found.over_depth.items():
        top = {"a": 3, "b": 4}[name]
        expected = [int(layer) / top for layer in shares["ablated_block"].values]
        np.testing.assert_allclose(shares["relative_depth"], expected, err_msg=f"{name} {kind}")
    figure = figure_comparison(found)
    figure.draw_without_rendering()
    attention, mlp = (axes.get_position() for axes in figure.axes)
    assert attention.width == pytest.approx(mlp.width)
    assert mlp.width > 0.3


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_figure_names_results_that_share_no_panel():
    results = synthetic.results(4, 40, 2)
    found = compare({kind: results.sel(ablated=results["ablated_kind"] == kind) for kind in ("attn", "mlp")}, FEW)
    assert legend(figure_comparison(found)) == ["attn", "mlp"]


def test_the_figure_says_what_it_does_not_show_in_full():
    found = compare({"a": synthetic.results(4, 40, 2), "b": synthetic.results(4, 40, 2)}, FEW)
    shares = found.over_depth["a", "attn"]
    shares.loc["estimate"] = [-3.0, 0.5]
    shares.loc[["low", "high"], shares["ablated"][1]] = np.nan
    found.over_depth["b", "attn"].loc["estimate"] = [7.0, 0.5]
    figure = figure_comparison(found)
    assert legend(figure) == ["a", "b", "below −1", "above 2", "without bounds: may remove nothing"]
    attention = figure.axes[0]
    lines = [line for line in attention.get_lines() if len(line.get_ydata()) == 1]
    at = {line.get_marker(): line.get_ydata()[0] for line in lines}
    assert (at["v"], at["^"]) == attention.get_ylim()
    (hollow,) = [line for line in lines if line.get_markerfacecolor() == "none"]
    assert hollow.get_ydata() == [0.5]


def test_where_nothing_is_removed_directly_there_is_no_answer():
    results = synthetic.results(4, 40, 2)
    earlier = results.assign(direct=xr.zeros_like(results["direct"]))
    found = compare({"a": results, "b": earlier}, FEW)
    assert {row.name for row in found.rows} == {"a"}
    assert {name for name, _ in found.over_depth} == {"a"}
    assert any("b is left out: only positions before the last" in each for each in found.warnings)
    assert legend(figure_comparison(found)) == ["a"]
    with pytest.raises(HydrascopeError, match="alone at the last position"):
        compare({"a": earlier, "b": earlier}, FEW)


def test_the_one_that_cannot_be_read_is_named():
    results = synthetic.results(4, 20, 2)
    both = synthetic.results(4, 20, 2, readouts={"logit": -1, "difference": -1})
    with pytest.raises(HydrascopeError, match=r"^b: .*difference"):
        compare({"a": both, "b": results}, FEW, "difference")
    unfinished = results.copy(deep=True)
    unfinished["unembed_ablated"][0, 4] = np.nan
    with pytest.raises(HydrascopeError, match=r"^second: .*1 of 20 prompts"):
        compare({"first": results, "second": unfinished}, FEW)


def test_there_must_be_two():
    with pytest.raises(HydrascopeError, match="nothing to compare: give at least two"):
        compare({"a": synthetic.results(2, 10, 1)})
    joint = synthetic.results(3, 10, 1, ablated=["attn.0+mlp.1"])
    with pytest.raises(HydrascopeError, match="nothing to compare: no component"):
        compare({"a": joint, "b": joint})


@pytest.mark.slow
def test_from_the_command_line(tmp_path):
    run = CliRunner()
    model, prompts = hs.load_model("phantom"), hs.load_prompts("phantom").limit(48)
    for name, ablation in (("a", hs.Resample(5)), ("b", hs.Zero())):
        hs.sweep(model, prompts, ablation, out=tmp_path / f"{name}.zarr")
    paths = [str(tmp_path / "a.zarr"), str(tmp_path / "b.zarr")]
    told = run.invoke(app, ["compare", *paths, "--out", str(tmp_path / "figures")], catch_exceptions=False)
    assert told.exit_code == 0
    assert "the ablations differ" in " ".join(told.stdout.split())
    assert max(map(len, told.stdout.splitlines()[:-1])) <= 80
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        f"comparison.{suffix}" for suffix in ("png", "pdf", "svg")
    }
