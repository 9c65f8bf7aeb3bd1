"""The first steps of a reader: examples to click, and the answer on a phone."""

from exploring import PATCHES, answered, ask, close, expected_effects, shown_effects, typed

import hydrascope as hs
from hydrascope.reports.flow.colours import DARK, LIGHT


def test_an_example_is_asked_by_a_click(opened, address, session):
    page = opened(f"{address}#ablation=zero")
    examples = page.locator("#examples button")
    assert examples.count() == 3
    told = examples.nth(2).text_content()
    answered(page, lambda: examples.nth(2).click())
    text, run = page.locator("#text").input_value(), page.locator("#run-label").input_value()
    assert told.startswith(f"“{text}”, ablate {run.partition('|')[0]} with mlp.2 frozen")
    found = hs.sweep(session.model, [text], hs.Zero(), ablate=[run])
    close(shown_effects(page, run), expected_effects(found, run))
    assert page.locator("#examples").is_hidden()


def test_on_a_phone_the_answer_is_on_screen(opened, address):
    """The sentence first, then the repair flow, drawn for a phone in the colours of the page."""
    page = opened(f"{address}#patches={PATCHES}&ablation=zero")
    page.set_viewport_size({"width": 390, "height": 844})
    ask(page, "<b>cats")
    shown = page.locator(".flow svg").locator("visible=true")
    for label in ("attn.0", "mlp.0", "attn.1", "mlp.1"):  # some hold the answer back, and have a sentence instead
        answered(page, lambda label=label: typed(page.locator("#run-label"), label))
        if shown.count():
            break
    box = page.locator("#found-run > p").bounding_box()
    assert 0 <= box["y"] < box["y"] + box["height"] <= 844
    assert page.locator("#found-run > *").nth(1).get_attribute("class") == "flow"
    picture = shown.bounding_box()
    assert shown.get_attribute("width") == "390"
    assert 340 <= picture["width"] <= 390
    assert box["y"] + box["height"] <= picture["y"]
    assert f"{page.locator('#run-label').input_value()} set to zero" in shown.locator("title").first.text_content()
    for scheme, colours in (("light", LIGHT), ("dark", DARK)):
        page.emulate_media(color_scheme=scheme)
        red, green, blue = (int(colours["gap"][i : i + 2], 16) for i in (1, 3, 5))
        fill = shown.locator(".band").first.evaluate("each => getComputedStyle(each).fill")
        assert fill == f"rgb({red}, {green}, {blue})"
    # Its texts have sizes of their own, and not the page's.
    sizes = shown.locator("text").evaluate_all("all => all.map((each) => getComputedStyle(each).fontSize)")
    assert "13px" in sizes
    page.set_viewport_size({"width": 1400, "height": 844})
    assert shown.get_attribute("width") == "900"
    assert page.locator("#ask b").count() == 0
