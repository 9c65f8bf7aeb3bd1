"""The first steps of a reader: examples to click, and the answer on a phone."""

from exploring import PATCHES, answered, ask, close, expected_effects, pick, shown_effects

import hydrascope as hs


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
    page = opened(f"{address}#patches={PATCHES}")
    page.set_viewport_size({"width": 390, "height": 844})
    ask(page)
    pick(page, "mlp.0")
    box = page.locator("#found-run > p").bounding_box()
    assert 0 <= box["y"] < box["y"] + box["height"] <= 844
