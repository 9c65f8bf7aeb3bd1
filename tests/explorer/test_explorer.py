"""The explorer in a real browser, with a model behind it: what is clicked is computed, and shown as computed."""

import re
import time
from functools import partial

import numpy as np
import pytest
from exploring import (
    PATCHES,
    POOL,
    TYPED,
    answered,
    ask,
    close,
    expected_effects,
    numbers,
    pick,
    serving,
    settle,
    shown_effects,
    shown_weights,
    started,
    swept,
    typed,
)
from opened import FEW, HOSTILE

import hydrascope as hs
from hydrascope.explorer.session import Session

#: The controls of each ablation.
CONTROLS = {
    "resample": {"patches", "seed", "different_target"},
    "noise": {"patches", "seed", "noise_scale"},
    "zero": set(),
    "mean": set(),
    "counterfactual": {"counterfactual"},
}


@pytest.mark.slow
def test_a_click_ablates_a_component_now(opened, session, address):
    page = started(opened, address)
    shares = [numbers(text)[-1] for text in page.locator("#next button").all_text_contents()]
    assert len(shares) == 10
    assert shares == sorted(shares, reverse=True)
    assert page.locator("#tokens button").all_text_contents() == list(TYPED)
    pick(page, "attn.0")
    found = swept(session, ablate=["layers", "attn.0+mlp.1"])
    close(shown_effects(page, "attn.0"), expected_effects(found, "attn.0"))
    writes = found["unembed_ablated"].isel(readout=0, prompt=-1).sel(ablated="attn.0", component="mlp.2")
    clean = found["unembed"].isel(readout=0, prompt=-1).sel(component="mlp.2")
    label = page.locator("button[data-component='mlp.2']").get_attribute("aria-label")
    np.testing.assert_allclose(numbers(label)[1:], [clean, writes], atol=0.006)
    pick(page, "mlp.1")
    assert page.locator("#run-label").input_value() == "attn.0+mlp.1"
    close(shown_effects(page, "attn.0+mlp.1"), expected_effects(found, "attn.0+mlp.1"))
    books = dict(
        zip(
            page.locator("#found-run th[scope=row]").all_text_contents()[2:],
            page.locator("#found-run .wide").last.locator("td").all_text_contents(),
            strict=True,
        )
    )
    np.testing.assert_allclose(numbers(books["total effect"]), numbers(books["sum"]), atol=0.002)
    pick(page, "attn.0")
    assert page.locator("#run-label").input_value() == "mlp.1"


@pytest.mark.slow
def test_of_what_adds_the_increase_is_said_to_be_undone(opened, session, address):
    page = started(opened, address)
    settle(page, "ablation", "zero")
    found = swept(session, hs.Zero()).isel(readout=0, prompt=-1, patch=0)
    removed, restored = -found["direct"], found["total"] - found["direct"]
    share = (restored / removed).where((removed < 0) & (restored < 0), drop=True)[0]
    pick(page, str(share["ablated"].values))
    told = page.locator("#found-run p").text_content()
    assert f"it adds instead of removing, and {float(share):.2f} of the increase is undone" in told


def test_a_run_of_many_components_is_broken_between_them(opened, address):
    page = started(opened, address)
    run = "+".join(f"head.{block}.{head}" for block in range(3) for head in range(4)) + "|mlp.1|mlp.2"
    answered(page, lambda: typed(page.locator("#run-label"), run))
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    tables = page.locator("#found-run .wide")
    assert tables.evaluate_all("all => all.map((each) => each.scrollWidth - each.clientWidth)") == [0, 0, 0]
    assert page.locator("#found-run strong").text_content() == run


@pytest.mark.slow
def test_a_frozen_component_shows_what_it_was_worth(opened, session, address):
    page = started(opened, address)
    pick(page, "attn.0")
    pick(page, "mlp.0", "frozen")
    pick(page, "attn.2", "frozen")
    found = swept(session, ablate=["attn.0", "attn.0|mlp.0", "attn.0|attn.2", "attn.0|mlp.0|attn.2"])
    total = found["total"].isel(readout=0, prompt=-1).mean("patch")
    worth = {
        name: float(total.sel(ablated="attn.0") - total.sel(ablated=run))
        for name, run in (
            ("mlp.0", "attn.0|mlp.0"),
            ("attn.2", "attn.0|attn.2"),
            ("all of these", "attn.0|mlp.0|attn.2"),
        )
    }
    rows = page.locator("#found-run .wide").nth(1).locator("tbody tr").all()
    assert [row.locator("th").text_content() for row in rows] == list(worth)
    shown = [numbers(row.locator("td").text_content())[0] for row in rows]
    np.testing.assert_allclose(shown, list(worth.values()), atol=0.006)
    assert max(map(abs, worth.values())) > 0.02


@pytest.mark.slow
def test_what_replaces_it_and_where_can_be_chosen(opened, session, address):
    page = started(opened, address)
    pick(page, "attn.1")
    for name, ablation in (("zero", hs.Zero()), ("mean", hs.Mean()), ("noise", hs.Noise(PATCHES, scale=1))):
        settle(page, "ablation", name)
        if name == "noise":
            settle(page, "noise_scale", 1)
        close(shown_effects(page, "attn.1"), expected_effects(swept(session, ablation, ablate="attn.1"), "attn.1"))
    settle(page, "ablation", "resample")
    settle(page, "seed", 4)
    found = swept(session, hs.Resample(PATCHES, seed=4), ablate="attn.1")
    close(shown_effects(page, "attn.1"), expected_effects(found, "attn.1"))
    answered(page, lambda: page.locator("#tokens button").nth(-2).click())
    assert "at=-2" in page.url
    assert page.locator("#where").input_value() == "chosen"
    longer = [text for text in POOL if len(text) > 1]
    found = hs.sweep(session.model, [*longer, TYPED], hs.Resample(PATCHES, seed=4), ablate="attn.1", at=-2)
    close(shown_effects(page, "attn.1"), expected_effects(found, "attn.1"))
    settle(page, "where", "last")
    answered(page, lambda: page.locator("#next button").nth(2).click())
    target = int(re.search(r"target=(\d+)", page.url)[1])
    found = swept(session, hs.Resample(PATCHES, seed=4), ablate="attn.1", target=target)
    close(shown_effects(page, "attn.1"), expected_effects(found, "attn.1"))


#: Prompts with a subject, and one without.
NAMED = [
    *(hs.Prompt(text, subject=text[2:5]) for text in ("the cat", "Hello, world", "QRS tuv", "dogs, no")),
    hs.Prompt("abc"),
]


@pytest.mark.slow
def test_the_subject_is_ablated_where_it_is_typed(opened, session, folder, monkeypatch):
    monkeypatch.setattr("hydrascope.explorer.session.report", partial(hs.report, bootstrap=FEW))
    with serving(Session(session.model, NAMED), folder, token="named") as address:
        page = started(opened, address)
        pick(page, "attn.1")
        assert page.locator("#subject").is_hidden()
        settle(page, "where", "subject")
        assert "The prompt's subject isn't known: type it" in page.locator("#refused").text_content()
        settle(page, "subject", "dogs")
        assert 'does not contain its subject "dogs"' in page.locator("#refused").text_content()
        settle(page, "subject", "ts ")
        prompts = [*NAMED[:4], hs.Prompt(TYPED, subject="ts ")]
        found = hs.sweep(session.model, prompts, hs.Resample(PATCHES), ablate="attn.1", at="subject")
        close(shown_effects(page, "attn.1"), expected_effects(found, "attn.1"))
        pressed = page.locator("#tokens [aria-pressed=true]")
        assert pressed.all_text_contents() == list("ts ")
        assert pressed.first.get_attribute("aria-label") == "token 2, “t”, subject"
        settle(page, "where", "subject-last")
        assert pressed.all_text_contents() == [" "]
        assert page.locator("#tokens .subject").all_text_contents() == list("ts ")
        last = hs.sweep(session.model, prompts, hs.Resample(PATCHES), ablate="attn.1", at="subject-last")
        close(shown_effects(page, "attn.1"), expected_effects(last, "attn.1"))
        again = opened(page.url)
        again.wait_for_function("() => document.body.dataset.answered === '1'")
        assert again.locator("#where").input_value() == "subject-last"
        assert again.locator("#subject").input_value() == "ts "
        assert again.locator("#found-run").text_content() == page.locator("#found-run").text_content() != ""
        page.locator("#save-name").fill("at the subject")
        page.locator("#everyone").check()
        answered(page, lambda: page.get_by_role("button", name="Save result and report").click())
        assert "Saved 5 prompts" in page.locator("#doing").text_content()
        kept = hs.open_results(folder / "at the subject.zarr")
        np.testing.assert_allclose(kept["total"], last["total"], rtol=1e-6, atol=1e-8)
        settle(page, "patches", 7)
        said = page.locator("#refused").text_content()
        assert "7 patches at the subject need as many other prompts with a subject, and of the 5" in said
        answered(page, lambda: page.locator("#tokens button").nth(3).click())
        assert page.locator("#where").input_value() == "chosen"
        assert page.locator("#subject").is_hidden()


@pytest.mark.slow
def test_what_other_prompts_are_for_is_said_as_it_is(opened, address):
    page = started(opened, address)
    pool = "7 prompts of prompts"
    for ablation, said in (
        ("resample", f"Patches come from {pool}, and your prompt is one more of them."),
        ("mean", f"Patches come from {pool}, and your prompt is one more of them."),
        ("zero", f"Results can be saved with the prompts of the pool, too: {pool}."),
        ("noise", f"Results can be saved with the prompts of the pool, too: {pool}."),
        ("resample", "Patches come from"),
    ):
        settle(page, "ablation", ablation)
        assert said in page.locator("#behind").text_content()
        assert ("Patches" in page.locator("#behind").text_content()) == (ablation in ("resample", "mean"))
        assert page.locator("#trace path.patch").count() == 2 * (PATCHES if ablation in ("resample", "noise") else 0)
    page.locator("#ablation").select_option("counterfactual")
    page.wait_for_function("() => document.querySelector('#behind').textContent.includes('is measured alone')")
    every = {name for controls in CONTROLS.values() for name in controls}
    for ablation, controls in CONTROLS.items():
        page.locator("#ablation").select_option(ablation)
        assert {name for name in every if page.locator(f"#{name}").is_visible()} == controls


def test_an_unknown_ablation_in_an_address_is_refused(opened, address):
    page = opened(f"{address}#ablation=constructor")
    assert "There is no ablation constructor." in page.locator("#behind").text_content()
    ask(page)
    assert "'constructor' replaces nothing" in page.locator("#refused").text_content()
    opened.told.clear()  # the browser notes every answer that is an error


@pytest.mark.slow
def test_heads_are_components_too(opened, session, address):
    page = started(opened, address)
    answered(page, lambda: page.locator("#heads-of").select_option("1"))
    pick(page, "head.1.2")
    found = swept(session, ablate="head.1.2", read="heads.1")
    close(shown_effects(page, "head.1.2"), expected_effects(found, "head.1.2"))
    intact = found["unembed"].isel(readout=0, prompt=-1).sel(component="head.1.3")
    label = page.locator("button[data-component='head.1.3']").get_attribute("aria-label")
    np.testing.assert_allclose(numbers(label)[2], intact, atol=0.006)


@pytest.mark.slow
def test_a_link_asks_the_same_again(opened, address):
    page = started(opened, address)
    pick(page, "attn.0")
    pick(page, "mlp.1", "frozen")
    again = opened(page.url)
    again.wait_for_function("() => document.body.dataset.answered === '1'")
    assert again.locator("#text").input_value() == TYPED
    assert again.locator("#found-run").text_content() == page.locator("#found-run").text_content() != ""
    answered(again, lambda: again.evaluate("location.hash = location.hash.replace('attn.0', 'attn.1')"))
    assert again.locator("#found-run strong").text_content() == "attn.1|mlp.1"


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
