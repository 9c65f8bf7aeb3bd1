"""The tutorial's code runs, prints what the page says it prints, and draws the pictures that the page shows."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from matplotlib.testing.compare import compare_images
from tutorial import blocks, printed

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGE = (DOCS / "causal-tutorial.md").read_text()
MODEL = ROOT.parent / "shared" / "models" / "stories260K"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The folder that the code runs in: a place for pictures and, where there is one, the model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    if MODEL.is_dir():
        (tmp_path / MODEL.name).symlink_to(MODEL)
    yield tmp_path
    plt.close("all")


def test_the_tutorial_does_what_it_says(folder):
    found = blocks(PAGE)
    without_model = found[: next(i for i, block in enumerate(found) if "load_model" in block.code)]
    assert 8 <= len(without_model) < len(found)
    run = found if MODEL.is_dir() else without_model
    for block, output in zip(run, printed(run), strict=True):
        assert output == block.output, block.code
    shown = set(re.findall(r"\]\((images/[^)]+)\)", PAGE))
    drawn = {str(path.relative_to(folder)) for path in folder.glob("images/*")}
    assert drawn == shown if run is found else drawn < shown
    for picture in drawn:
        # Root mean square over 0–255: fonts may be set a pixel apart by another version of matplotlib, a picture
        # of something else is far beyond.
        assert compare_images(str(DOCS / picture), str(folder / picture), tol=25) is None
