"""A report in the browser, and what a reader does on it."""

import re

#: What sublayers write in ablated runs, under each reading of σ.
SIGMA = {"clean": "unembed_ablated", "own": "unembed_ablated_own"}


def drawn(page, act):
    """Do something, and wait until the page has been drawn again."""
    before = page.evaluate("document.body.dataset.drawn")
    act()
    page.wait_for_function("before => document.body.dataset.drawn !== before", arg=before)


def layers(depth=4):
    return [f"{kind}.{block}" for kind in ("attn", "mlp") for block in range(depth)]


PARTS = [*layers(), "head.2.1"]


def cell(page, ablated, component):
    """The middle of a cell, on the screen: the first row is at the bottom."""
    page.locator("#matrix-keys").scroll_into_view_if_needed()
    box = page.locator("#matrix canvas").bounding_box()
    across, down = (layers().index(component) + 0.5) / 8, (PARTS.index(ablated) + 0.5) / 9
    return box["x"] + across * box["width"], box["y"] + (1 - down) * box["height"]


def numbers(text):
    return [float(each.replace("−", "-")) for each in re.findall(r"−?\d+\.\d+", text)]


def boxes(page):
    """The tokens of the story: what each reads as, and how it is marked."""
    return page.locator("#boxes li").evaluate_all(
        """boxes => boxes.map((each) => [each.firstChild.textContent, each.children[0]?.textContent ?? ""])"""
    )
