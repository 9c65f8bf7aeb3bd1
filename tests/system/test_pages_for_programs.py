"""The commands of pages run as printed: of for-agents.md and json.md with what they show, of start.md."""

import contextlib
import io
import json
import os
from pathlib import Path

import pytest
from command import Run
from commands import blocks, commands, is_part
from json_shapes import deviations

from hydrascope.cli import demo
from hydrascope.loading.fetch import model_file
from hydrascope.measures import Bootstrap
from hydrascope.reports.summary.shapes import SHAPES

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("part", "whole"),
    [
        ({"a": 1}, {"a": 1, "b": 2}),
        ([{"name": "y"}], [{"name": "x"}, {"name": "y", "z": 0}]),
        ({"low": 0.80}, {"low": 0.7999}),
        ([], []),
        (None, None),
    ],
)
def test_a_part_is_found(part: object, whole: object) -> None:
    assert is_part(part, whole)


@pytest.mark.parametrize(
    ("part", "whole"),
    [
        ({"a": 1}, {"b": 1}),
        ({"a": 0.80}, {"a": 0.79}),
        ({"a": 0.80}, {"a": None}),
        ([{"name": "y"}], [{"name": "x"}]),
        ([], ["a warning"]),
        ({"answer": "no"}, {"answer": "yes"}),
    ],
)
def test_another_is_no_part(part: object, whole: object) -> None:
    assert not is_part(part, whole)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kinds"), [("for-agents", {"", "json", "text"}), ("json", {"", "json"})])
def test_every_command_runs_and_gives_what_the_page_says(
    hydrascope: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kinds: set[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    found = blocks((DOCS / f"{name}.md").read_text("utf-8"))
    assert {block.kind for block in found} == kinds
    for block in found:
        if block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile(block.code, name, "exec"), namespace)
            assert printed.getvalue() == block.output, block.code
            continue
        for command in commands(block):
            code, out, err = hydrascope(*command.arguments)
            assert code == command.code, (command, err)
        if block.kind == "json":
            assert deviations(json.loads(out), SHAPES[command.arguments[0]]) == []
            assert is_part(json.loads(block.output), json.loads(out)), (command, out)
        elif block.kind == "text":
            assert block.output == out + err


@pytest.mark.skipif(not model_file("smollm2").exists(), reason="SmolLM2 isn't here: run `hydrascope fetch smollm2`")
@pytest.mark.slow
@pytest.mark.usefixtures("one_format")
def test_the_commands_of_the_start_run_after_the_demo(
    hydrascope: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few prompts: the page shows what many give."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Bootstrap.__init__, "__defaults__", (100, 0.95, 0))
    monkeypatch.setattr(demo, "ZERO", 8)
    monkeypatch.setattr(demo, "RESAMPLED", 6)
    page = (DOCS / "start.md").read_text("utf-8")
    assert "    make demo\n" in page
    assert hydrascope("demo", "--out", "demo")[0] == 0
    found = [command for block in blocks(page) for command in commands(block)]
    assert len(found) > 6
    for command in found:
        code, _, err = hydrascope(*command.arguments)
        assert code == command.code, (command, err)
    results = {f"{name}.zarr" for name in ("zero", "who", "resample", "control")}
    assert {*results, "report.html", "comparison.html", "zero.csv"} <= set(os.listdir("demo"))
