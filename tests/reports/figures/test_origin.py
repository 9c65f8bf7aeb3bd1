"""Every saved figure says what it is of, on it and in its files, and no path."""

import json
import re
from io import StringIO
from pathlib import Path

import numpy as np
import pypdfium2
import pytest
import synthetic
from PIL import Image
from rich.console import Console

from hydrascope.measures import Bootstrap, per_prompt
from hydrascope.reports.figures.captions import figure2_caption
from hydrascope.reports.flow.source import as_named, in_one_line, source_of
from hydrascope.reports.html.report_data import build_page
from hydrascope.reports.kinds import KINDS, draw_all
from hydrascope.reports.summary.terminal import render


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = synthetic.results(4, 12, 2)
    results.attrs |= {"model": "/home/me/models/tiny.gguf", "prompts": "/home/me/facts.json"}
    results.attrs |= {"revision": "sha256:12345678ab", "patches": 2}
    folder = tmp_path_factory.mktemp("figures")
    draw_all(results, folder)
    return folder


@pytest.mark.parametrize("name", ["responses", "figure1", "figure2", "figure3", "figure7", "figure8"])
def test_files_tell_what_they_are_of(drawn: Path, name: str) -> None:
    with Image.open(drawn / f"{name}.png") as picture:
        told = picture.text
    assert told["Title"] == name
    of = json.loads(told["Description"])
    assert (of["model"], of["weights"], of["prompts"]) == ("tiny", "sha256:12345678ab", "12 of facts.json")
    assert pypdfium2.PdfDocument(drawn / f"{name}.pdf").get_metadata_dict()["Subject"] == told["Description"]
    svg = (drawn / f"{name}.svg").read_text()
    shown = " ".join(re.sub(r"<[^>]+>", " ", svg.partition("</metadata>")[2]).split())
    assert "tiny · weights 12345678 · prompts: 12 of facts.json · " in shown
    for suffix in ("png", "pdf", "svg"):
        assert b"/home/me" not in (drawn / f"{name}.{suffix}").read_bytes()


def test_a_figure_names_its_run() -> None:
    results = synthetic.results(4, 12, 2).assign_attrs(model="org/tiny", ablation="zero", positions="last")
    line = in_one_line(source_of(per_prompt(results)))
    assert line.startswith("tiny · ")
    assert "zero at last · Readout: logit, at the clean run’s σ" in line
    assert "weights" not in line


def test_changed_weights_are_named_wherever_a_run_is() -> None:
    results = synthetic.results(4, 12, 2).assign_attrs(revision="sha256:12345678ab", weights_changed="adapter merged")
    source = source_of(per_prompt(results))
    assert "weights 12345678, adapter merged · " in in_one_line(source)
    assert as_named(source)["weights changed"] == "adapter merged"
    assert "(weights 12345678, adapter merged)" in figure2_caption(source)
    built = build_page(results, Bootstrap(resamples=20), KINDS["sweep"].views)
    assert ["weights changed", "adapter merged"] in built.page["run"]
    shown = StringIO()
    Console(file=shown, width=200).print(render(built.summary))
    assert ", adapter merged: " in shown.getvalue()


def test_each_figure_has_its_caption_and_no_path(drawn: Path) -> None:
    text = (drawn / "captions.md").read_text()
    parts = dict(part.split("\n\n", 1) for part in text.split("## ")[1:])
    assert set(parts) == {path.stem for path in drawn.iterdir()} - {"captions"}
    assert "/home/me" not in text
    for name, part in parts.items():
        told = "Model: tiny (weights 12345678); 12 prompts of facts.json"
        assert told.replace("_", r"\_") in part, name
        assert "Ablated components are resampled from other prompts at the last token, 2 patches per prompt." in part
        assert "Readout: logit, at the clean run’s σ, in logits." in part
    assert "(b) The sublayer of either kind with the highest R²" in parts["figure7"]
    assert "95% intervals by resampling the prompts, 2,000 times" in parts["figure7"]
    assert "2 patches, faint, and their mean" in parts["figure1"]


@pytest.mark.usefixtures("one_format")
def test_captions_of_one_prompt_speak_of_no_intervals_and_markup_is_text(tmp_path: Path) -> None:
    results = synthetic.results(3, 1, 1).assign_attrs(model="a_b*<script>", ablation="zero")
    results["text"] = results["text"].copy(data=np.array(["**bold** <img src=x> [l](u)"], object))
    draw_all(results, tmp_path)
    text = (tmp_path / "captions.md").read_text()
    assert "1 prompt. " in text
    assert "set to zero" in text
    for word in ("interval", "Bounds", "R²", "regression", "patches", "Means"):
        assert word not in text, word
    assert "<img" not in text.replace(r"\<", "")
    assert r"\*\*bold\*\* \<img" in text
    assert r"a\_b\*\<script\>" in text
