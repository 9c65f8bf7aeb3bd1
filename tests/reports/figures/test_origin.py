"""Every saved figure says what it is of, on it and in its files, and no path."""

import json
from pathlib import Path

import pypdfium2
import pytest
import synthetic
from PIL import Image

from hydrascope.reports.figures.origin import in_one_line, origin
from hydrascope.reports.kinds import draw_all


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = synthetic.results(4, 12, 2)
    results.attrs |= {"model": "/home/me/models/tiny.gguf", "prompts": "/home/me/facts.json"}
    results.attrs["revision"] = "sha256:12345678ab"
    folder = tmp_path_factory.mktemp("figures")
    draw_all(results, folder)
    return folder


@pytest.mark.parametrize("name", ["responses", "figure1", "figure2", "figure3", "figure7", "figure8"])
def test_files_tell_what_they_are_of(drawn: Path, name: str) -> None:
    with Image.open(drawn / f"{name}.png") as picture:
        told = picture.text
    assert told["Title"] == name
    of = json.loads(told["Description"])
    assert (of["model"], of["weights"], of["prompts"]) == ("tiny", "12345678", "12 of facts.json")
    assert pypdfium2.PdfDocument(drawn / f"{name}.pdf").get_metadata_dict()["Subject"] == told["Description"]
    svg = (drawn / f"{name}.svg").read_text()
    assert "12 of facts.json" in svg
    for suffix in ("png", "pdf", "svg"):
        assert b"/home/me" not in (drawn / f"{name}.{suffix}").read_bytes()


def test_a_figure_names_its_run() -> None:
    results = synthetic.results(4, 12, 2).assign_attrs(model="org/tiny", ablation="zero", positions="last")
    line = in_one_line(origin(results, "logit"))
    assert line.startswith("tiny · ")
    assert "zero at last · Readout: logit" in line
