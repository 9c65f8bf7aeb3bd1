"""The JSON of commands has the shape that docs/json.md describes, and so have the exit codes."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import synthetic
from command import Run
from command_line import COMMANDS, formats
from json_shapes import deviations

import hydrascope as hs
from hydrascope.cli import app
from hydrascope.measures import Bootstrap
from hydrascope.reports.kinds import summarise
from hydrascope.reports.summary import Summary, as_json
from hydrascope.reports.summary.interval import Interval
from hydrascope.reports.summary.shapes import SHAPES
from tools.docs import fields

PAGE = Path(__file__).parents[2] / "docs" / "json.md"
FEW = Bootstrap(resamples=40)


def section(title: str) -> str:
    """Return a section of the page."""
    return PAGE.read_text("utf-8").split(f"\n## {title}\n")[1].split("\n## ")[0]


def codes() -> dict[int, str]:
    """Return the exit codes of the page and their meaning."""
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", section("Exit codes"), re.MULTILINE)
    return {int(code): meaning for code, meaning in rows}


def test_every_command_that_prints_json_is_on_the_page() -> None:
    printing = {name for name in COMMANDS if "json" in formats(name)}
    assert printing == set(SHAPES)
    for name in printing:
        example = section(f"hydrascope {name}")
        assert f"hydrascope {name} " in example
        assert "```json\n{" in example
        assert f"[{SHAPES[name].__name__}](#{SHAPES[name].__name__.lower()})" in example


def test_the_page_describes_every_field_as_the_code_does() -> None:
    """If not: PYTHONPATH=src .venv/bin/python -m tools.docs.fields."""
    page = PAGE.read_text("utf-8")
    assert page == fields.in_page(page)


def test_a_field_without_words_is_told() -> None:
    @dataclass
    class Row:
        """A row.

        Attributes:
            one: the first,
                in two lines.
        """

        one: int
        two: int

    with pytest.raises(ValueError, match="doesn't describe two"):
        fields.meanings(Row)


@pytest.mark.parametrize(
    "kind", ["sweep", *(pytest.param(each, marks=pytest.mark.slow) for each in ("mediation", "interactions"))]
)
def test_summaries_are_of_the_shape(kind: str) -> None:
    if kind == "sweep":
        results = synthetic.results(4, 12, 1)
    else:
        experiment = hs.Mediation("attn.3", "attn") if kind == "mediation" else hs.Interactions("attn.3,attn.4")
        results = hs.sweep(hs.load_model("phantom"), hs.load_prompts("phantom").limit(6), hs.Zero(), ablate=experiment)
    printed = json.loads(as_json(summarise(results, FEW)))
    assert printed[{"sweep": "verdicts", "mediation": "reactions", "interactions": "pairs"}[kind]]
    assert deviations(printed, Summary) == []


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"estimate": 1.0, "low": None, "high": 2}, []),
        ({"estimate": 1.0, "low": None}, [": not the fields of Interval"]),
        ({"estimate": 1.0, "low": None, "high": 2.0, "width": 1.0}, [": not the fields of Interval"]),
        ({"estimate": "1", "low": None, "high": 2.0}, [".estimate: '1' is no float"]),
    ],
)
def test_another_shape_is_seen(value: Any, told: list[str]) -> None:
    assert deviations(value, Interval) == told


def test_exported_rows_have_the_columns_of_the_page() -> None:
    described = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (.*?) \|", section("hydrascope export"), re.M))))
    model, prompts = hs.load_model("phantom"), hs.load_prompts("phantom").limit(2)
    results = hs.sweep(model, prompts, hs.Zero(), ablate="attn.3", metrics=["kl", "top"])
    printed = {re.sub("^(kl|top)_", "NAME_", name) for name in hs.tidy(results).columns}
    assert printed - {"NAME_kept"} == described - {"clean", "corrupt", "normalised"}


def test_exit_codes(hydrascope: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(codes()) == {0, 1, 2, 141}
    assert hydrascope("--version")[0] == 0
    assert hydrascope("summary", "nowhere.zarr")[0] == 2
    with monkeypatch.context() as patch:
        patch.setattr(app, "say", _raise(KeyboardInterrupt))
        assert hydrascope("--version") == (2, "", "hydrascope: interrupted\n")
    # Python ends with 1.
    monkeypatch.setattr(app, "say", _raise(RuntimeError))
    monkeypatch.setattr(sys, "argv", ["hydrascope", "--version"])
    with pytest.raises(RuntimeError):
        app.main()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGPIPE")
def test_the_exit_code_where_the_reader_has_left() -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        done = subprocess.run([sys.executable, "-m", "hydrascope", "--version"], stdout=pipe, check=False)
    assert 128 - done.returncode == 141


def _raise(kind: type[BaseException]) -> Any:
    def raising(*arguments: object, **options: object) -> None:
        raise kind

    return raising
