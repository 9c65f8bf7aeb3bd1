"""Who repairs from the command line: `mediate` and `interact`, then summaries and figures of what they measured."""

import csv
import io
import json
import sys
from dataclasses import replace

import numpy as np
import pytest

import hydrascope as hs
from hydrascope import measures
from hydrascope.cli import app
from hydrascope.reports.kinds import draw_all, summarise
from hydrascope.reports.summary import as_csv, as_markdown
from hydrascope.reports.summary.interval import UNKNOWN, Interval
from hydrascope.reports.summary.verdict_text import mediation_sentences


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The phantom, mediated and interacting, by the command line."""
    folder = tmp_path_factory.mktemp("who")
    common = ["phantom", "--prompts", "phantom", "--limit", "30", "--ablation", "zero"]
    commands = {
        "mediation": ["mediate", *common, "--ablate", "attn.1,attn.3", "--mediators", "layers,heads.4,value.4.1"],
        "interactions": ["interact", *common, "--components", "attn.1,attn.3,head.4.1,mlp.3"],
    }
    for name, command in commands.items():
        before, sys.argv = sys.argv, ["hydrascope", *command, "--out", str(folder / f"{name}.zarr")]
        try:
            with pytest.raises(SystemExit) as end:
                app.main()
        finally:
            sys.argv = before
        assert not end.value.code
    return folder


@pytest.mark.slow
def test_reactions_are_the_means_of_mediation(measured):
    results = hs.open_results(measured / "mediation.zarr")
    found = summarise(results)
    means = measures.mediation(results).isel(readout=0).mean("prompt")
    # Downstream of attn.3 are 5 sublayers and 4 heads; of attn.1, 9 sublayers and 4 heads; and what one of these reads.
    assert len(found.reactions) == 5 + 4 + 1 + 9 + 4 + 1
    assert {row.mediator for row in found.reactions[:3]} == {"attn.4", "head.4.1", "value.4.1"}
    for row in found.reactions:
        one = means.sel(ablated=row.ablated, mediator=row.mediator)
        for name in ("restored_by", "restored_alone", "response"):
            value = getattr(row, name)
            assert value.estimate == pytest.approx(float(one[name]), abs=1e-12, nan_ok=True)
            if row.mediator == "value.4.1" and name == "response":
                continue
            assert value.low <= value.estimate <= value.high
    # The verdict is that of the plain run.
    plain = hs.sweep(hs.load_model("phantom"), hs.load_prompts("phantom").limit(30), hs.Zero(), ablate="attn.1,attn.3")
    assert found.verdicts[0].restored.estimate == pytest.approx(summarise(plain).verdicts[0].restored.estimate)


@pytest.mark.parametrize(
    ("removed", "told"),
    [
        (Interval(0.4, -0.1, 0.9), "nothing is surely removed directly (0.40 [−0.10, 0.90] logits), so that there is "),
        (Interval(-2.0, -2.5, -1.5), "nothing is surely removed directly (−2.00 [−2.50, −1.50] logits), so that "),
        (UNKNOWN, "nothing is surely removed directly, so that there is nothing to restore."),
        (Interval(2.4, 2.1, 2.7), "necessary are "),
        (Interval(2.4, np.nan, np.nan), "necessary are "),
    ],
)
def test_nobody_restores_what_may_be_nothing(measured, removed, told):
    summary = summarise(hs.open_results(measured / "mediation.zarr"))
    components = tuple(replace(row, removed=removed) if row.ablated == "attn.3" else row for row in summary.components)
    found = mediation_sentences(replace(summary, components=components))
    assert found[0].startswith(f"Who restores what attn.3 removes: {told}")


def test_pairs_are_the_means_of_interactions(measured):
    results = hs.open_results(measured / "interactions.zarr")
    found = summarise(results)
    means = measures.interactions(results).isel(readout=0).mean("prompt")
    together = results["total"].isel(readout=0).mean(["prompt", "patch"])
    labels = {frozenset(str(label).split("+")): label for label in together["ablated"].values}
    assert len(found.pairs) == 6
    first = found.pairs[0]
    assert (first.first, first.second) == ("attn.3", "head.4.1")
    assert first.interaction.high < 0
    for row in found.pairs:
        pair = float(means["interaction"].sel(first=row.first, second=row.second))
        alone = [-float(means["total"].sel(first=name)) for name in (row.first, row.second)]
        assert row.interaction.estimate == pytest.approx(pair, abs=1e-12)
        assert row.lost.estimate == pytest.approx(alone[1], abs=1e-12)
        # What both lose together is what the first loses, and then the second.
        both = -float(together.sel(ablated=labels[frozenset((row.first, row.second))]))
        assert alone[0] + row.lost_after.estimate == pytest.approx(both, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [("mediation", 24, ["ablated", "mediator", "restored_by_low"]), ("interactions", 6, ["first", "interaction_high"])],
)
def test_for_programs(measured, name, rows, columns):
    found = summarise(hs.open_results(measured / f"{name}.zarr"))
    table = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert len(table) == rows
    assert all(row[column] for row in table for column in columns)
    assert f"| {columns[0]} |" in as_markdown(found)


@pytest.mark.slow
@pytest.mark.usefixtures("one_format")
def test_as_text_and_as_pictures(measured, tmp_path, capsys, monkeypatch):
    def summary(name: str, *options: str) -> str:
        monkeypatch.setattr(sys, "argv", ["hydrascope", "summary", str(measured / f"{name}.zarr"), *options])
        with pytest.raises(SystemExit) as end:
            app.main()
        assert not end.value.code
        return capsys.readouterr().out

    for name, told, rows in (
        ("mediation", "Whose reaction restores what", "reactions"),
        ("interactions", "Who covers for whom", "pairs"),
    ):
        assert len(json.loads(summary(name, "--format", "json"))[rows]) >= 6
        for text in (summary(name), summary(name, "--full")):
            assert told in text
            assert max(map(len, text.splitlines())) <= 80
        drawn = draw_all(hs.open_results(measured / f"{name}.zarr"), tmp_path / name)
        assert name in {path.stem for path in drawn.paths}


def test_help_names_what_is_shared_and_what_is_not(capsys, monkeypatch):
    shown = {}
    for command in ("run", "mediate", "interact"):
        monkeypatch.setattr(sys, "argv", ["hydrascope", command, "--help"])
        with pytest.raises(SystemExit):
            app.main()
        shown[command] = capsys.readouterr().out
        assert all(option in shown[command] for option in ("--prompts", "--ablation", "--resume", "--batch-size"))
    assert "--read " in shown["run"]
    assert "--read " not in shown["mediate"]
    assert "--mediators" in shown["mediate"]
    assert "--mediators" not in shown["interact"]
