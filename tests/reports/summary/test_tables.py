"""Print and write the tables of a summary: what is listed, marked and counted."""

import io
import json

import numpy as np
import pandas as pd
import pytest
import synthetic
from printed_summary import printed

from hydrascope.measures import Bootstrap
from hydrascope.reports.kinds import summarise
from hydrascope.reports.summary import PRINTED, Summary, as_csv, as_json, as_markdown, format_interval

FEW = Bootstrap(resamples=40)


def test_only_the_strongest_heads_are_printed() -> None:
    results = synthetic.results(2, 5, 1, heads=PRINTED, read_heads=False)
    summary = summarise(results, FEW)
    text = printed(summary)
    heads = [part for part in summary.components if part.kind == "head"]
    assert len(heads) == 2 * PRINTED
    in_order = sorted(heads, key=lambda part: part.removed.estimate, reverse=True)
    rows = text[text.index("Ablations") :].splitlines()
    listed = {line.strip("│").split("│")[0].strip() for line in rows}
    assert all(part.ablated in listed for part in in_order[:PRINTED])
    assert not any(part.ablated in listed for part in in_order[PRINTED:])
    assert f"the {PRINTED} that remove most are listed; {PRINTED} are left out" in text


def test_names_are_printed_as_they_are() -> None:
    results = synthetic.results(2, 5, 2)
    results.attrs["model"] = "[red]folder[/red]"
    assert "[red]folder[/red]" in printed(summarise(results, FEW))


def test_formats() -> None:
    results = synthetic.results(4, 40, 1)
    results.attrs["model"] = "a|b"
    summary = summarise(results, FEW)
    found = json.loads(as_json(summary))
    assert found["verdicts"][0]["restored"]["estimate"] == summary.verdicts[0].restored.estimate
    assert found["components"][0]["ablated"] == "attn.0"
    assert "NaN" not in as_json(summary)
    table = pd.read_csv(io.StringIO(as_csv(summary)))
    np.testing.assert_allclose(table["restored_low"], [part.restored.low for part in summary.components])
    markdown = as_markdown(summary)
    assert all(f"| {part.ablated} |" in markdown for part in summary.components)
    assert markdown.startswith("With attn.")


def increased() -> Summary:
    """Ablating attn.1 adds 2 logits, give or take, and loses 1: more than all that it adds is undone; attn.2 may add
    nothing."""
    results = synthetic.results(4, 40, 1, ablated=["attn.0", "attn.1", "attn.2"])
    spread = np.linspace(-0.5, 0.5, 40)
    for part, adds in (("attn.1", 2 + spread), ("attn.2", -0.1 + 10 * spread)):
        results["direct"].loc[{"ablated": part}] = adds[:, None]
        results["total"].loc[{"ablated": part}] = -1
    return summarise(results, FEW)


def test_a_share_of_an_increase_is_marked() -> None:
    """It reads as repair of a loss, else: 1 − lost/removed is the share of the direct change that is undone."""
    summary, note = (
        increased(),
        "† adds instead of removing: restored is then the share of the increase that is undone.",
    )
    assert [part.adds for part in summary.components] == [False, True, False]
    assert summary.components[1].restored.estimate == pytest.approx(1.5, abs=0.05)
    text, markdown = printed(summary), as_markdown(summary)
    for told in (text, markdown):
        assert told.count(note) == 1
        assert told.count("†") == 2
    assert any("attn.1" in line and "1.50†" in line for line in text.splitlines())
    (row,) = (line for line in markdown.splitlines() if line.startswith("| attn.1 |"))
    assert f"| {format_interval(summary.components[1].restored, 2)}† |" in row
    assert note not in printed(summary, full=False)


def test_nothing_is_marked_where_nothing_adds() -> None:
    summary = summarise(synthetic.results(4, 40, 1), FEW)
    assert "†" not in printed(summary) + as_markdown(summary)


def test_a_share_of_what_may_be_nothing_is_in_no_table() -> None:
    part = increased().components[2]
    assert np.isfinite(part.restored.estimate)
    (row,) = (line for line in as_markdown(increased()).splitlines() if line.startswith("| attn.2 |"))
    assert row.split(" | ")[4:8] == ["–"] * 4


@pytest.mark.parametrize(
    ("ablated", "said"),
    [
        (None, "4 attention sublayers, 4 MLPs, 8 heads ablated (resample, 2 patches, at last), 5 prompts;"),
        (["mlp.1", "head.2.1"], "1 MLP, 1 head ablated "),
        (["attn.0", "attn.0+mlp.1", "attn.1+mlp.1"], "1 attention sublayer, 2 combinations ablated "),
        (["attn.0", "attn.0+mlp.1"], "1 attention sublayer, 1 combination ablated "),
    ],
)
def test_what_was_ablated_is_counted(ablated: list[str] | None, said: str) -> None:
    text = printed(summarise(synthetic.results(4, 5, 2, heads=2, ablated=ablated), FEW))
    assert f"synthetic: {said}" in " ".join(text.split())


def test_one_patch_of_one_prompt_is_counted_as_one() -> None:
    text = printed(summarise(synthetic.results(4, 1, 1), FEW))
    assert " ablated (resample, 1 patch, at last), 1 prompt;" in " ".join(text.split())
