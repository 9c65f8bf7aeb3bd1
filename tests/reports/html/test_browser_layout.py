"""A page fits any width, and the network on it is a column."""

import re

import pytest
from browsing import CHROMIUM
from opened import FEW
from report_page import drawn, layers

import hydrascope as hs
from hydrascope import measures


def test_a_phone_shows_all_without_scrolling_sideways(browser, file):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(file)
    page.wait_for_selector("body[data-drawn]")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#matrix .cells").bounding_box()["width"] > 250
    page.close()


def test_on_paper_nothing_is_hidden_behind_a_scroll_bar(opened, file):
    page = opened(file, media="print")
    page.wait_for_selector("body[data-drawn]")
    # As tall as a deep network's: this one scrolls nowhere.
    page.locator("#column").evaluate("each => (each.style.height = '1500px')")
    assert page.locator(".column").evaluate_all("all => all.every((each) => each.scrollHeight <= each.clientHeight)")


@pytest.mark.parametrize("width", [390, 968, 1280])
def test_what_a_sublayer_writes_fits_its_button_at_any_width(browser, file, width):
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(file)
    page.wait_for_selector("body[data-drawn]")
    for button in page.locator("#column button.component").all():
        around, value = button.bounding_box(), button.locator(".value").bounding_box()
        assert around["x"] <= value["x"]
        assert value["x"] + value["width"] <= around["x"] + around["width"]
        assert button.locator(".value").evaluate("each => each.scrollWidth <= each.clientWidth")
    page.close()


def test_a_scroll_bar_moves_no_cell_from_its_label(browser, file):
    """A bar comes once the page is drawn: the window is taller than it is before. Other tests show no bars."""
    args = {"executable_path": CHROMIUM, "args": ["--no-sandbox"], "ignore_default_args": ["--hide-scrollbars"]}
    with_bars = browser.browser_type.launch(**args)
    page = with_bars.new_page(viewport={"width": 1280, "height": 1500})
    page.goto(file)
    page.wait_for_selector("body[data-drawn]")
    assert page.evaluate("innerWidth - document.documentElement.clientWidth") > 0
    for plot in page.locator("main .plot").all():
        assert plot.locator("svg").get_attribute("width") == str(plot.evaluate("each => each.clientWidth"))
    with_bars.close()


def test_the_network_as_a_column_says_what_every_sublayer_writes_and_ablates_what_is_clicked(opened, file, results):
    page = opened(f"{file}#component=mlp.1")
    effects = measures.per_prompt(results, str(results["readout"].values[0])).sel(ablated="attn.2")
    drawn(page, lambda: page.get_by_role("button", name=re.compile(r"^attn\.2, writes")).click())
    assert page.evaluate("new URLSearchParams(location.hash.slice(1)).get('component')") == "attn.2"
    for name in layers():
        said = page.locator(f"#column [data-component='{name}']").get_attribute("aria-label").replace("−", "-")
        intact, ablated = map(float, re.search(r"writes (\S+), in this run (\S+)", said).groups())
        here = effects.sel(component=name)
        assert intact == pytest.approx(float(here["unembed"].mean()), abs=0.006)
        assert ablated == pytest.approx(float(here["unembed_ablated"].mean()), abs=0.006)
    assert page.locator("#column [aria-pressed=true]").get_attribute("data-component") == "attn.2"
    drawn(page, lambda: page.locator("#prompt").select_option("1"))
    assert page.locator("#column-title").text_content() == "The network, clean and with attn.2 ablated: prompt 1"
    said = page.locator("#column [data-component='attn.2']").get_attribute("aria-label").replace("−", "-")
    expected = float(effects["unembed"].isel(prompt=1).sel(component="attn.2"))
    assert float(re.search(r"writes ([^\s,]+)", said)[1]) == pytest.approx(expected, abs=0.006)


@pytest.mark.slow
def test_a_sublayer_that_was_not_ablated_cannot_be_clicked_in_the_column(opened, results, tmp_path):
    one = results.isel(ablated=[list(results["ablated"].values).index("attn.1")])
    page = opened(hs.report(one, tmp_path / "one.html", bootstrap=FEW).as_uri())
    enabled = page.locator("#column button:enabled")
    assert enabled.evaluate_all("found => found.map(each => each.dataset.component)") == ["attn.1"]
