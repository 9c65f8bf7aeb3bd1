"""A split in the summary, on the page, in figures and on the command line."""

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from rich.console import Console
from typer.testing import CliRunner

import hydrascope as hs
from hydrascope.cli.app import app
from hydrascope.measures import Bootstrap, split
from hydrascope.reports.figures import figure_split
from hydrascope.reports.kinds import draw_all, summarise
from hydrascope.reports.pages import page_data
from hydrascope.reports.summary import as_csv, as_json, as_latex, as_markdown, render
from hydrascope.reports.summary.interval import Interval
from hydrascope.reports.summary.split_rows import SplitRow, split_sentences

FEW = Bootstrap(resamples=40)
NONE = Interval(0.1, 0.0, 0.2)


@pytest.fixture(scope="module")
def results() -> xr.Dataset:
    prompts = hs.load_prompts("phantom").limit(40)
    return hs.sweep(hs.load_model("phantom"), prompts, hs.Zero(), ablate=hs.Split("attn,head.3.0"))


def row(damping: tuple[float, ...], content: tuple[float, ...]) -> SplitRow:
    return SplitRow("attn.3", "logit", NONE, Interval(*damping), Interval(*content), NONE, NONE, NONE)


@pytest.mark.parametrize(
    ("damping", "content", "answer"),
    [
        ((0.7, 0.6, 0.8), (0.0, -0.2, 0.2), "prediction"),
        ((0.7, 0.6, 0.8), (0.4, 0.1, 0.65), "can't tell"),
        ((0.0, -0.1, 0.1), (0.8, 0.7, 0.9), "content"),
        ((-0.5, -0.6, -0.4), (-0.8, -0.9, -0.7), "can't tell"),
        ((0.7, np.nan, np.nan), (0.0, np.nan, np.nan), "can't tell"),
    ],
)
def test_an_answer_is_given_only_where_it_is_sure(damping, content, answer: str) -> None:
    found = row(damping, content)
    assert found.answer == answer
    (sentence,) = split_sentences([found], ["attn.3", "mlp.0", "attn.3"])
    told = {"prediction": "negative feedback would", "content": "a backup would", "can't tell": "can’t be told"}[answer]
    assert sentence.endswith(f"{told}.")


def test_the_summary_holds_the_splits(results: xr.Dataset) -> None:
    summary, table = summarise(results, FEW), split(results, bootstrap=FEW)
    removed = {each.ablated: each.removed for each in summary.components}
    sure = [removed[each.ablated].low > 0 for each in summary.splits]
    assert sure == sorted(sure, reverse=True)
    assert summary.splits[0].ablated in ("attn.3", "head.3.0")
    for each in summary.splits:
        for name in ("damping", "content_repair", "one_sided"):
            value = getattr(each, name)
            expected = table[name].sel(ablated=each.ablated).values
            np.testing.assert_array_equal([value.estimate, value.low, value.high], expected)
    written = json.loads(as_json(summary))
    assert [each["ablated"] for each in written["splits"]] == [each.ablated for each in summary.splits]
    assert as_csv(summary).splitlines()[0].startswith("ablated,readout,restored_slope,restored_slope_low")
    assert "| ablated | readout | restored_slope | damping |" in as_markdown(summary)
    assert "restored\\_slope & damping" in as_latex(summary)
    shown = StringIO()
    Console(file=shown, width=100).print(render(summary))
    text = " ".join(shown.getvalue().split())
    assert "Repair of attn.3: of the missing push along the readout alone 0%" in text
    assert "So the network answers mostly to the missing content, as a backup would." in text
    assert "one-sided" not in text.partition("Damping and content repair")[2].partition("└")[0]


def test_the_page_holds_them(results: xr.Dataset) -> None:
    page, _ = page_data(results, FEW)
    (first, *_) = (reading for readout in page["readouts"] for reading in readout["readings"])
    ranked = first["ranked"]
    assert ranked["head"] == ["Ablated", "Restored (slope)", "Damping", "Content repair", "Boost (slope)"]
    assert ranked["rows"][0][0] in ("attn.3", "head.3.0")
    assert all(len(each) == 5 for each in ranked["rows"])
    # The page is of the whole ablations alone.
    assert not any(":" in each["name"] for each in page["ablated"])


def test_the_figure_shows_each_split(results: xr.Dataset) -> None:
    figure = figure_split(results, bootstrap=FEW)
    left, right = figure.axes
    names = [label.get_text() for label in left.get_yticklabels()]
    assert {"attn.3", "head.3.0"} <= set(names)
    place = names.index("attn.3")
    table = split(results, bootstrap=FEW).sel(ablated="attn.3", bound="estimate")
    for axes, low, high in ((left, "restored_slope", "boost_slope"), (right, "damping", "content_repair")):
        points = sorted((line.get_ydata()[0], line.get_xdata()[0]) for line in axes.lines if len(line.get_xdata()) == 1)
        here = [x for y, x in points if abs(y - place) < 0.4]
        np.testing.assert_allclose(here, [table[low], table[high]], atol=1e-12)


@pytest.mark.slow
def test_it_is_drawn_with_the_others(results: xr.Dataset, tmp_path: Path) -> None:
    drawn = draw_all(results, tmp_path)
    assert {"split", "responses", "figure7"} <= set(drawn.captions)
    assert (tmp_path / "split.pdf").exists()


def test_other_readouts_come_after_the_first(results: xr.Dataset) -> None:
    rows = [row((0.7, 0.6, 0.8), (0.0, -0.2, 0.2)), SplitRow("attn.3", "difference", *[NONE] * 6)]
    (sentence,) = split_sentences(rows, ["attn.3"])
    assert "feedback would. On difference, of the missing push" in sentence
    prompts = hs.load_prompts("phantom").limit(30)
    readouts = [hs.Logit(), hs.Placebo(1), hs.LogitDifference()]
    both = hs.sweep(hs.load_model("phantom"), prompts, hs.Zero(), ablate=hs.Split("attn.3"), readouts=readouts)
    assert [each.readout for each in summarise(both, FEW).splits] == ["logit", "difference"]
    for readout in ("logit", "difference"):
        figure = figure_split(both, readout, FEW)
        assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["attn.3"]
        content = split(both, readout, FEW)["content_repair"].sel(ablated="attn.3", bound="estimate")
        assert float(content) in [line.get_xdata()[0] for line in figure.axes[1].lines if len(line.get_xdata()) == 1]
    found = split(both, "difference", FEW)["damping"].sel(ablated="attn.3", bound="estimate")
    assert summarise(both, FEW).splits[1].damping.estimate == float(found)


def test_the_command_reads_the_difference_as_well(tmp_path: Path) -> None:
    out = tmp_path / "split.zarr"
    given = ["run", "phantom", "--prompts", "phantom", "--limit", "6", "--ablation", "zero", "--ablate", "attn.3"]
    assert CliRunner().invoke(app, [*given, "--split", "--out", str(out)]).exit_code == 0
    results = hs.open_results(out)
    assert list(results["readout"].values) == ["logit", "difference"]
    assert "attn.3:content(difference)" in results["ablated"].values
