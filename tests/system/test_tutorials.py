"""A tutorial's code runs, prints what the page says it prints, and draws the pictures that the page shows."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from matplotlib.testing.compare import compare_images
from tutorial import blocks, printed

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
#: Pages, and the fewest blocks of code that each has.
PAGES = [
    *(
        pytest.param(page, least, marks=pytest.mark.slow)
        for page, least in (("causal-tutorial.md", 5), ("who-repairs.md", 5), ("python.md", 3))
    ),
    ("activations.md", 5),
    ("generation.md", 2),
    ("models.md", 1),
]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The folder that the code runs in, with a place for pictures."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    yield tmp_path
    plt.close("all")


@pytest.mark.usefixtures("passes_once")
@pytest.mark.parametrize(("page", "least"), PAGES)
def test_the_tutorial_does_what_it_says(folder, page, least):
    page = (DOCS / page).read_text()
    found = blocks(page)
    assert len(found) >= least
    for block, output in zip(found, printed(found), strict=True):
        assert output == block.output, block.code
    shown = set(re.findall(r"\]\((images/[^)]+)\)", page))
    drawn = {str(path.relative_to(folder)) for path in folder.glob("images/*")}
    assert drawn == shown
    for picture in drawn:
        # Root mean square over 0–255: fonts may be set a pixel apart by another version of matplotlib, a picture
        # of something else is far beyond.
        assert compare_images(str(DOCS / picture), str(folder / picture), tol=25) is None
