"""A report in the browser, and what a reader does on it."""

import re

import numpy as np

#: What sublayers write in ablated runs, under each reading of σ.
SIGMA = {"clean": "unembed_ablated", "own": "unembed_ablated_own"}


def drawn(page, act):
    """Do something, and wait until the page has been drawn again."""
    before = page.evaluate("document.body.dataset.drawn")
    act()
    page.wait_for_function("before => document.body.dataset.drawn !== before", arg=before)


def layers(depth=4):
    return [f"{kind}.{block}" for block in range(depth) for kind in ("attn", "mlp")]


PARTS = [*layers(), "head.2.1"]


def cell(page, ablated, component):
    """The middle of a cell, on the screen: the first row is at the bottom."""
    page.locator("#matrix-keys").scroll_into_view_if_needed()
    box = page.locator("#matrix .cells").bounding_box()
    across, down = (layers().index(component) + 0.5) / 8, (PARTS.index(ablated) + 0.5) / 9
    return box["x"] + across * box["width"], box["y"] + (1 - down) * box["height"]


def colours(page, rows=9, columns=8):
    """The colours of the matrix's cells, `[row, column, channel]`, and their opacity; the first row first."""
    pixels = page.evaluate(
        """async ([rows, columns]) => {
            const picture = new Image();
            picture.src = document.querySelector("#matrix .cells").getAttribute("href");
            await picture.decode();
            const canvas = document.createElement("canvas");
            const context = canvas.getContext("2d", { willReadFrequently: true });
            [canvas.width, canvas.height] = [picture.width, picture.height];
            context.drawImage(picture, 0, 0);
            const [w, h] = [picture.width / columns, picture.height / rows], found = [];
            for (let row = 0; row < rows; row++) {
                for (let column = 0; column < columns; column++) {
                    found.push(...context.getImageData((column + 0.5) * w, (rows - row - 0.5) * h, 1, 1).data);
                }
            }
            return found;
        }""",
        [rows, columns],
    )
    return np.array(pixels).reshape(rows, columns, 4).astype(int)


def numbers(text):
    return [float(each.replace("−", "-")) for each in re.findall(r"−?\d+\.\d+", text)]


def boxes(page):
    """The tokens of the story: what each reads as, and how it is marked."""
    return page.locator("#boxes li").evaluate_all(
        """boxes => boxes.map((each) => [each.firstChild.textContent, each.children[0]?.textContent ?? ""])"""
    )
