"""A report printed to real PDF pages: each cell is where its labels say, with the colour of its number."""

from collections import Counter

import numpy as np
import pypdfium2
import pytest
from report_page import PARTS, colours, layers

#: Pixels for each point of the page.
SHARP = 3


@pytest.mark.browser
@pytest.mark.parametrize("width", [1400, 1100, 390])
def test_printed_cells_stand_at_their_labels(browser, file, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(file)
    page.wait_for_selector("body[data-drawn]")
    expected = colours(page)
    printed = pypdfium2.PdfDocument(page.pdf(format="A4", print_background=True))
    rows, columns, picture = _matrix(printed)
    assert rows.keys() == set(PARTS)
    assert columns.keys() == set(layers())
    beside = 0.35 * (columns["mlp.3"] - columns["attn.0"]) / 7
    for row, ablated in enumerate(PARTS):
        for column, component in enumerate(layers()):
            if not expected[row, column, 3]:
                continue
            # A letter or a dash may stand in the middle: look beside it.
            y, x = _pixel(rows[ablated]), _pixel(columns[component] + beside)
            assert abs(picture[y, x, :3].astype(int) - expected[row, column, :3]).max() <= 3, (ablated, component)
    page.close()


@pytest.mark.browser
def test_the_first_printed_page_is_used(browser, file):
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(file)
    page.wait_for_selector("body[data-drawn]")
    first = pypdfium2.PdfDocument(page.pdf(format="A4"))[0].render(scale=1).to_numpy()
    used = np.flatnonzero((first < 250).any((1, 2)))
    assert used.max() > 0.7 * len(first)
    page.close()


def _matrix(document):
    """The heights of row labels and the places of column labels, in points, and the page as a picture."""
    for sheet in document:
        text = sheet.get_textpage()
        boxes = {name: list(_boxes(text, name)) for name in PARTS}
        upright = {name: [box for box in found if box[3] - box[1] > box[2] - box[0]] for name, found in boxes.items()}
        columns = {name: (found[0][0] + found[0][2]) / 2 for name, found in upright.items() if found}
        if columns:
            # Other texts name components, too; labels of rows end in line.
            ends = Counter(
                round(box[2]) for found in boxes.values() for box in found if box[3] - box[1] < box[2] - box[0]
            )
            end = ends.most_common(1)[0][0]
            rows = {
                name: sheet.get_height() - (box[1] + box[3]) / 2
                for name, found in boxes.items()
                for box in found
                if round(box[2]) == end
            }
            return rows, columns, sheet.render(scale=SHARP, rev_byteorder=True).to_numpy()
    raise AssertionError("no page has the matrix")


def _boxes(text, name):
    search = text.search(name)
    while (found := search.get_next()) is not None:
        start, count = found
        boxes = [text.get_charbox(index) for index in range(start, start + count)]
        lows, highs = np.min(boxes, 0), np.max(boxes, 0)
        yield lows[0], lows[1], highs[2], highs[3]


def _pixel(point):
    return round(point * SHARP)
