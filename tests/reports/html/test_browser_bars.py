"""The bars beside a matrix, as long as what is removed and lost, and the key in its empty corner."""

import re

import numpy as np
import pytest
import synthetic
from opened import FEW
from report_page import PARTS, colours, drawn, numbers

import hydrascope as hs


def _outcomes(results, prompt=None):
    """Return the amounts removed and lost, `[amount, ablated]`, as means or on one prompt."""
    at = results.isel(readout=0).sel(ablated=PARTS)
    values = [
        -at[name].astype(float).mean("patch").transpose("prompt", "ablated").values for name in ("direct", "total")
    ]
    return np.array([each.mean(0) if prompt is None else each[prompt] for each in values])


def _ends(page, kind):
    """Where the bars of a kind begin and end, and their heights, in pixels."""
    path = page.locator(f"#matrix path.bar.{kind}").first.get_attribute("d")
    found = re.findall(r"M(\S+) (\S+?)H(\S+?)v(\S+?)H", path)
    return np.array(found, float)


def _axis(page):
    """The pixels of a unit and of 0, by the ticks below the bars."""
    start = _ends(page, "lost")[0, 0]
    ticks = page.locator("#matrix text.tick[text-anchor=middle]").evaluate_all(
        "all => all.map((each) => [each.textContent, Number(each.getAttribute('x')), Number(each.getAttribute('y'))])"
    )
    low = max(y for _, x, y in ticks if abs(x - start) < 0.1)
    known = {float(text.replace("−", "-")): x for text, x, y in ticks if y == low}
    assert known[0.0] == pytest.approx(start, abs=0.1)
    far = max(known, key=abs)
    return (known[far] - known[0.0]) / far, known[0.0]


@pytest.mark.parametrize(("address", "prompt"), [("", None), ("#prompt=3", 3)])
def test_bars_are_as_long_as_what_is_removed_and_lost(opened, file, results, address, prompt):
    page = opened(f"{file}{address}")
    unit, zero = _axis(page)
    box = page.locator("#matrix .cells").evaluate(
        "each => ['y', 'height'].map((name) => Number(each.getAttribute(name)))"
    )
    outcomes, clipped = _outcomes(results, prompt), 0
    for kind, values in zip(("removed", "lost"), outcomes, strict=True):
        bars = _ends(page, kind)
        assert len(bars) == len(PARTS)
        for row, (value, (start, y, end, tall)) in enumerate(zip(values, bars, strict=True)):
            middle = box[0] + box[1] * (1 - (row + 0.5) / len(PARTS))
            assert abs(y + tall / 2 - middle) < box[1] / len(PARTS) / 2
            assert start == pytest.approx(zero, abs=0.1)
            if abs(end - start - value * unit) > 0.15:
                # Beyond the axis it is shorter, and an arrow says so.
                assert 0 < (end - start) / (value * unit) < 1
                clipped += 1
    assert (outcomes < 0).any()
    assert page.locator("#matrix path.bar.beyond").count() == clipped
    assert clipped < (2 if prompt is None else 9)


def test_pointing_at_bars_and_keys_tell_them(opened, file, results):
    page = opened(f"{file}#component=attn.1")
    removed, lost = _outcomes(results)
    page.locator("#matrix .plot").focus()
    for key in ("Home", "End", "ArrowRight"):
        page.keyboard.press(key)
    told = page.locator("#live").text_content()
    row = PARTS.index("attn.1")
    assert told.startswith("attn.1 ablated: ")
    said = numbers(told)
    assert len(said) == 6
    np.testing.assert_allclose([said[0], said[3]], [removed[row], lost[row]], rtol=0.01, atol=1e-3)
    assert said[1] <= said[0] <= said[2]
    assert said[4] <= said[3] <= said[5]
    page.keyboard.press("ArrowRight")
    assert page.locator("#live").text_content() == told
    page.keyboard.press("ArrowUp")
    assert page.locator("#live").text_content().startswith("mlp.1 ablated: ")
    drawn(page, lambda: page.keyboard.press("Enter"))
    assert page.locator("#chosen").text_content() == "mlp.1 ablated"
    page.keyboard.press("ArrowLeft")
    assert page.locator("#live").text_content().startswith("mlp.1 ablated, mlp.3: ")
    cells, plot = page.locator("#matrix .cells").bounding_box(), page.locator("#matrix .plot").bounding_box()
    height = cells["y"] + cells["height"] * (1 - (row + 0.5) / len(PARTS))
    page.mouse.move(plot["x"] + plot["width"] - 40, height)
    assert page.locator("#tip").text_content() == told


def test_pairs_have_no_bars(opened, pairs):
    page = opened(pairs[1])
    assert page.locator("#matrix path.bar").count() == 0
    page.locator("#matrix .plot").focus()
    for key in ("Home", "End", "ArrowRight"):
        page.keyboard.press(key)
    assert page.locator("#live").text_content().startswith("attn.0 and head.2.1: ")


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """The page of a deep network, whose matrix has a large empty corner."""
    results = synthetic.results(14, 30, 1)
    return hs.report(results, tmp_path_factory.mktemp("deep") / "a.html", bootstrap=FEW).as_uri()


@pytest.fixture
def wide(browser, deep):
    """That page in a wide window, light or dark."""
    pages = []

    def open_wide(scheme="light"):
        pages.append(browser.new_page(viewport={"width": 1400, "height": 900}, color_scheme=scheme))
        pages[-1].goto(deep)
        pages[-1].wait_for_selector("body[data-drawn]")
        return pages[-1]

    yield open_wide
    for page in pages:
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_key_and_the_largest_stand_in_the_empty_corner(wide, scheme):
    page = wide(scheme)
    cells = page.locator("#matrix .cells").bounding_box()
    empty = colours(page, 28, 28)[::-1, :, 3] == 0  # from the top
    names = page.locator("#matrix text.named")
    assert names.count() == page.locator("#extremes li").count() > 1
    inside = [
        *names.all(),
        page.get_by_text("writes with the change", exact=True),
        page.get_by_text("writes against it, makes up", exact=True),
    ]
    for each in inside:
        box = each.bounding_box()
        assert box["y"] >= cells["y"] - 1
        assert box["x"] >= cells["x"]
        column = int((box["x"] + box["width"] - cells["x"]) / cells["width"] * 28)
        row = int((box["y"] + box["height"] - cells["y"]) / cells["height"] * 28)
        assert empty[: row + 1, : column + 1].all(), each.text_content()
    # A click on a name chooses its row, as one on its cell does.
    ablated = re.split(r" ablated| →", names.last.text_content())[0]
    names.last.hover()
    assert page.locator("#tip").text_content().startswith(f"{ablated} ablated, ")
    drawn(page, names.last.click)
    assert page.locator("#chosen").text_content() == f"{ablated} ablated"
    # The frame of a chosen row crosses no text.
    for component in ("mlp.13", "mlp.12", "mlp.11", "mlp.10", "mlp.9"):
        drawn(page, lambda component=component: page.locator("#component").select_option(component))
        frame = page.locator("#matrix rect.row").bounding_box()
        for each in inside:
            box = each.bounding_box()
            over = box["y"] < frame["y"] + frame["height"] and frame["y"] < box["y"] + box["height"]
            assert not over or box["x"] + box["width"] <= frame["x"], component


def test_the_list_appears_once_keys_reach_it(wide):
    page = wide()
    first = page.locator("#extremes button").first
    assert first.bounding_box()["width"] <= 1 or page.locator("#extremes").bounding_box()["height"] <= 1
    first.focus()
    assert page.locator("#extremes").bounding_box()["height"] > 40
    assert first.bounding_box()["width"] > 100


def test_on_a_phone_the_key_stands_above(browser, deep):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(deep)
    page.wait_for_selector("body[data-drawn]")
    assert page.locator("#matrix text.named").count() == 0
    assert page.locator("#extremes").bounding_box()["height"] > 40
    end = page.get_by_text("writes with the change", exact=True).bounding_box()
    assert end["y"] + end["height"] < page.locator("#matrix .cells").bounding_box()["y"]
    assert page.locator("#matrix path.bar.lost").first.bounding_box()["width"] > 5
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()
