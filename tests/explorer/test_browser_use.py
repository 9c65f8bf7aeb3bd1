"""Use the page in a real browser: by keys or phone, with mistakes, and while others ask."""

import re
import time

import pytest
from exploring import (
    PATCHES,
    TYPED,
    answered,
    ask,
    close,
    expected_effects,
    pick,
    serving,
    settle,
    shown_effects,
    shown_weights,
    started,
    swept,
    typed,
)
from opened import HOSTILE


def test_a_run_of_many_components_is_broken_between_them(opened, address):
    page = started(opened, address)
    run = "+".join(f"head.{block}.{head}" for block in range(3) for head in range(4)) + "|mlp.1|mlp.2"
    answered(page, lambda: typed(page.locator("#run-label"), run))
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    tables = page.locator("#found-run .wide")
    assert tables.evaluate_all("all => all.map((each) => each.scrollWidth - each.clientWidth)") == [0, 0, 0]
    assert page.locator("#found-run strong").text_content() == run


def test_an_unknown_ablation_in_an_address_is_refused(opened, address):
    page = opened(f"{address}#ablation=constructor")
    assert "There is no ablation constructor." in page.locator("#behind").text_content()
    ask(page)
    assert "'constructor' replaces nothing" in page.locator("#refused").text_content()
    opened.told.clear()  # the browser notes every answer that is an error


def test_what_cannot_be_asked_is_said_and_nothing_is_lost(opened, address):
    page = started(opened, address)
    pick(page, "attn.0")
    before = page.locator("#found-run").text_content()
    for text, said in (
        ("", "The prompt is empty: write one"),
        ("a" * 100, "the context of gpt2 holds 64"),
        ("x" * 25_000, "25,000 characters long"),
    ):
        ask(page, text)
        assert said in page.locator("#refused").text_content()
        assert page.locator("#refused").text_content().endswith(" (what stands below was asked before)")
        assert page.locator("#found-run").text_content() == before
    ask(page)
    assert page.locator("#refused").is_hidden()
    answered(page, lambda: typed(page.locator("#run-label"), "attn.7"))
    assert "has no attn.7" in page.locator("#refused").text_content()
    answered(page, lambda: typed(page.locator("#run-label"), "|mlp.2"))
    assert "Ablate a component, too" in page.locator("#found-run").text_content()
    answered(page, lambda: typed(page.locator("#run-label"), "attn.2|attn.1"))
    assert page.locator("#refused").text_content().startswith("attn.2|attn.1 freezes attn.1")
    opened.told.clear()  # the browser notes every answer that is an error


@pytest.mark.slow
def test_hostile_prompts_stay_texts(opened, address):
    page = opened(f"{address}#patches={PATCHES}")
    for text in HOSTILE:
        page.locator("#text").evaluate("(box, text) => (box.value = text)", text)
        answered(page, lambda: page.locator("#typed button[type=submit]").click())
        shown = page.locator("#tokens").text_content()
        assert page.locator("#refused").is_visible() or len(shown) > 0
    ask(page, "<b>'\"& \u202eab")
    settle(page, "ablation", "zero")
    answered(page, lambda: page.locator("#draw-map").click())
    assert page.locator("#map text", has_text="<").count() > 0
    pick(page, "mlp.0")
    assert page.locator("#found-next table").count() == 1
    answered(page, lambda: page.locator("#heads-of").select_option("1"))
    page.locator("button[data-component='head.1.0']").hover()
    assert shown_weights(page)[0][:3] == ["<unk>", "b", "<unk>"]
    assert page.locator("#refused").is_hidden()
    assert page.evaluate("window.hacked") is None
    assert page.locator("#ask img, #ask b, #ask script").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    opened.told.clear()


@pytest.mark.slow
def test_two_tabs_are_answered_one_after_the_other(opened, session, address):
    one, other = (started(opened, address) for _ in range(2))
    before = [page.evaluate("document.body.dataset.answered") for page in (one, other)]
    one.locator("button[data-component='attn.0']").click()
    other.locator("button[data-component='mlp.0']").click()
    for page, said in zip((one, other), before, strict=True):
        page.wait_for_function("before => document.body.dataset.answered !== before", arg=said)
    found = swept(session, ablate="layers")
    for page, run in ((one, "attn.0"), (other, "mlp.0")):
        close(shown_effects(page, run), expected_effects(found, run))


@pytest.mark.slow
def test_a_long_computation_shows_how_far_it_is_and_is_cancelled(opened, session, address, monkeypatch):
    page, watched = started(opened, address), []

    def slowly(question, watch):
        watched.append(watch)
        while True:
            watch.progress("measuring", 3, 10)
            time.sleep(0.01)

    monkeypatch.setattr(type(session), "ablate", lambda self, question, watch: slowly(question, watch))
    with serving(session, None, token="slow") as slow:
        page = started(opened, slow)
        page.locator("button[data-component='attn.0']").click()
        page.wait_for_function("() => document.getElementById('doing').textContent === 'measuring: 3 of 10'")
        assert page.locator("#far").is_visible()
        answered(page, lambda: page.get_by_role("button", name="Cancel").click())
        assert page.locator("#doing").text_content() == "Cancelled."
        assert page.locator("#stop").is_hidden()
        end = time.monotonic() + 5
        while not watched[0].stopped and time.monotonic() < end:
            time.sleep(0.01)
        assert watched[0].stopped
        page.locator("button[data-component='attn.1']").click()
        page.wait_for_function("() => document.getElementById('doing').textContent === 'measuring: 3 of 10'")
        page.close()
        while not (len(watched) > 1 and watched[1].stopped) and time.monotonic() < end + 5:
            time.sleep(0.01)
        assert watched[1].stopped


@pytest.mark.slow
def test_a_server_that_ends_and_starts_again(opened, session, folder):
    with serving(session, folder, token="first") as address:
        page = started(opened, address)
        pick(page, "attn.0")
        found, port = page.locator("#found-run").text_content(), int(re.search(r":(\d+)/", address)[1])
    answered(page, lambda: page.locator("button[data-component='mlp.0']").click())
    assert "The server behind this page doesn’t answer" in page.locator("#refused").text_content()
    assert page.locator("#found-run").text_content() == found
    with serving(session, folder, port=port, token="second") as again:
        answered(page, lambda: page.locator("button[data-component='mlp.0']").click())
        assert "open the one that it printed" in page.locator("#refused").text_content()
        fresh = opened(again + page.url.partition("/first/")[2])
        fresh.wait_for_function("() => document.body.dataset.answered === '1'")
        assert fresh.locator("#found-run strong").text_content().startswith("attn.0")
    opened.told.clear()


def test_keys_alone_are_enough(opened, address):
    page = opened(f"{address}#patches={PATCHES}")
    page.locator("#text").focus()
    page.keyboard.type(TYPED)
    answered(page, lambda: page.keyboard.press("Enter"))
    page.locator("button[data-component='attn.2']").focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.component") == "mlp.0"
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowLeft")
    answered(page, lambda: page.keyboard.press("Enter"))
    assert page.locator("#run-label").input_value() == "attn.1"
    assert page.evaluate("document.activeElement.dataset.component") == "attn.1"
    assert page.locator("#network [tabindex='0']").count() == 1
    assert page.locator("#live").text_content().startswith("attn.1 removes ")
    page.locator("#tokens [tabindex='0']").focus()
    page.keyboard.press("ArrowLeft")
    answered(page, lambda: page.keyboard.press("Enter"))
    assert "at=-2" in page.url
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "token 6, “n”"


def test_axe_finds_nothing_amiss(opened, address):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core isn't installed").Axe()
    page = started(opened, address)
    pick(page, "attn.0")
    pick(page, "mlp.1", "frozen")
    settle(page, "ablation", "zero")
    answered(page, lambda: page.locator("#heads-of").select_option("0"))
    page.locator("button[data-component='head.0.0']").focus()
    answered(page, lambda: page.locator("#draw-map").click())
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = axe.run(page).response
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]] == []
        assert {"color-contrast", "label", "select-name"} <= {each["id"] for each in found["passes"]}


def test_a_phone_shows_all_without_scrolling_sideways(opened, address):
    page = opened(f"{address}#patches={PATCHES}")
    page.set_viewport_size({"width": 390, "height": 800})
    ask(page)
    pick(page, "attn.0")
    settle(page, "ablation", "zero")
    answered(page, lambda: page.locator("#heads-of").select_option("2"))
    page.locator("button[data-component='head.2.1']").focus()
    answered(page, lambda: page.locator("#draw-map").click())
    assert page.locator("#attention li").count() == 1 + len(TYPED)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("button[data-component='attn.0']").bounding_box()["width"] > 120
