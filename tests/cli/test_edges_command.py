"""Edges and distances from the command line, their tables, scores and figure."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from command import Run
from PIL import Image
from scipy import stats
from tiny import shared

import hydrascope as hs
from hydrascope.reports.figures import figure_edges
from hydrascope.reports.summary.edge_table import edge_rows
from hydrascope.utils.errors import HydrascopeError

RANDOM = np.random.default_rng(3)
PROMPTS = [RANDOM.integers(3, 60, 6).tolist() for _ in range(24)]


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.usefixtures("one_format")
def test_edges_are_those_of_the_library(hydrascope: Run, folder: Path, tmp_path: Path) -> None:
    given = [folder / "model", "--prompts", folder / "prompts.txt", "--ablation", "zero", "--out", tmp_path / "e"]
    code, out, err = hydrascope("edges", *given, "--format", "csv", "--to", "layers,logits,query.1.0")
    assert code == 0
    assert err.splitlines()[-1] == f"2 files in {tmp_path / 'e'}"
    with Image.open(tmp_path / "e" / "edges.png") as picture:
        assert min(picture.size) > 100
    model = hs.load_model(folder / "model")
    prompts = hs.load_prompts(folder / "prompts.txt")
    found = hs.analyses.edges(model, prompts, hs.Zero(), readers="layers,logits,query.1.0")
    mean = found["edge"].mean("prompt").isel(readout=0)
    rows = read(out)
    assert len(rows) == int(found["exists"].sum())
    for row in rows:
        at = float(mean.sel(source=row["source"], reader=row["reader"]))
        assert float(row["effect"]) == pytest.approx(at, abs=1e-5)
        assert (row["eap"] in ("", "nan")) == row["reader"].startswith("query")
    sizes = [abs(float(row["effect"])) for row in rows]
    assert sizes == sorted(sizes, reverse=True)
    code, out, _ = hydrascope("edges", *given[:-2])
    assert code == 0
    assert "Spearman" in out
    assert "miss its total effect by" in " ".join(out.split())


@pytest.mark.slow
@pytest.mark.usefixtures("one_format")
def test_distances_come_with_a_control(hydrascope: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(f"{a}{b} cat" for a in "abcdef" for b in "uvwxy"))
    given = [folder / "model", "--prompts", tmp_path / "prompts.txt", "--ablation", "zero", "--ablate", "attn"]
    code, out, err = hydrascope("distance", *given, "--format", "csv", "--out", tmp_path / "d")
    assert code == 0, err
    rows = read(out)
    assert rows == read((tmp_path / "d" / "distance.csv").read_text())
    model, prompts = hs.load_model(folder / "model"), hs.load_prompts(tmp_path / "prompts.txt")
    found = hs.analyses.distance(model, prompts, hs.Zero(), ablate="attn")
    control = hs.sweep(model, prompts, hs.ablations.SameSize(hs.Zero()), ablate="attn")
    slopes = hs.measures.restoration(hs.measures.per_prompt(control))["restored_slope"]
    for row in rows:
        block = int(found["first_block"].sel(ablated=row["ablated"]))
        at = found.sel(ablated=row["ablated"], block=block).median("prompt")
        assert float(row["kick"]) == pytest.approx(float(at["kick"]), rel=1e-4)
        expected = float(slopes.sel(ablated=row["ablated"], bound="estimate"))
        assert float(row["control_slope"]) == pytest.approx(expected, rel=1e-3)
    assert hydrascope("distance", *given)[0] == 0

    run = [*given, "--out", tmp_path / "run.zarr"]
    assert hydrascope("run", *run)[0] == 0
    beside = ["--distance", tmp_path / "d"]
    code, out, err = hydrascope("summary", tmp_path / "run.zarr", *beside, "--format", "json")
    assert code == 0, err
    summary = json.loads(out)
    assert [each["ablated"] for each in summary["kicks"]] == [row["ablated"] for row in rows]
    assert summary["kicks"][0]["control_slope"]["estimate"] == pytest.approx(float(rows[0]["control_slope"]))
    opened = hs.open_results(tmp_path / "run.zarr")
    verdict = hs.reports.summarise(opened).verdicts[0]
    told = " ".join(hydrascope("summary", tmp_path / "run.zarr", *beside)[1].split())
    for label in verdict.component.split(" or "):
        assert f"Kick of {label}: " in told
        assert "after random directions of the same size" in told
    assert "Kick of" not in hydrascope("summary", tmp_path / "run.zarr")[1]


@pytest.mark.usefixtures("one_format")
def test_distances_of_another_run_are_refused(hydrascope: Run, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(f"{a}{b} cat" for a in "abcdef" for b in "uvwxy"))
    given = [folder / "model", "--prompts", tmp_path / "prompts.txt", "--ablate", "attn"]
    assert hydrascope("distance", *given, "--ablation", "zero", "--out", tmp_path / "d")[0] == 0
    assert hydrascope("run", *given, "--ablation", "mean", "--out", tmp_path / "run.zarr")[0] == 0
    for distance, message in (
        (tmp_path / "d", "the distances are of another ablation than the effects: measure both alike"),
        (tmp_path, "give the folder that `hydrascope distance --out` wrote"),
    ):
        code, _, err = hydrascope("summary", tmp_path / "run.zarr", "--distance", distance)
        assert code == 2
        assert message in err.splitlines()[-1]
        assert "Traceback" not in err


@pytest.mark.parametrize(
    ("command", "more", "message"),
    [
        ("edges", ["--to", "mlp.9"], "mlp.9"),
        ("edges", ["--from", "neuron.1.0"], "neuron.1.0"),
        ("edges", ["--integrated", "--ablation", "zero"], "resample or counterfactual"),
        ("edges", ["--integrated", "--ablation", "resample", "--patches", "1"], "--at all"),
        ("distance", [], "give at least 22"),
    ],
)
def test_mistakes_are_one_line(hydrascope: Run, folder: Path, command: str, more: list[str], message: str) -> None:
    code, _, err = hydrascope(command, folder / "model", "--prompts", folder / "prompts.txt", *more)
    assert code == 2
    assert message in err.splitlines()[-1]
    assert "Traceback" not in err


def test_scores_are_scipys_over_all_edges() -> None:
    found = hs.analyses.edges(shared("llama"), PROMPTS, hs.Mean())
    there = found["exists"].values
    exact, estimate = (found[name].isel(readout=0).values[:, there] for name in ("edge", "eap"))
    scores = hs.measures.edge_scores(found).sel(estimator="eap")
    assert float(scores["pearson"]) == pytest.approx(stats.pearsonr(exact.mean(0), estimate.mean(0))[0])
    assert float(scores["spearman"]) == pytest.approx(stats.spearmanr(exact.mean(0), estimate.mean(0))[0])
    each = [stats.spearmanr(one, other)[0] for one, other in zip(exact, estimate, strict=True)]
    assert float(scores["spearman_by_prompt"].sel(bound="estimate")) == pytest.approx(np.mean(each))
    with pytest.raises(HydrascopeError, match="holds no estimate"):
        hs.measures.edge_scores(found.drop_vars("eap"))


def test_the_figure_shows_losses_where_there_are_edges() -> None:
    found = hs.analyses.edges(shared("llama"), PROMPTS, hs.Mean(), slopes=False)
    mesh = figure_edges(found).axes[0].collections[0]
    drawn = np.ma.filled(mesh.get_array().astype(float), np.nan).reshape(found["exists"].shape)
    loss = -found["edge"].isel(readout=0).mean("prompt").values
    np.testing.assert_allclose(drawn[found["exists"].values], loss[found["exists"].values])
    assert np.isnan(drawn[~found["exists"].values]).all()
    assert len(edge_rows(found)) == int(found["exists"].sum())
