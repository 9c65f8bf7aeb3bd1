"""Click in a real browser: what is clicked is computed, and shown as computed."""

import re
from functools import partial

import numpy as np
import pytest
from exploring import (
    PATCHES,
    POOL,
    TYPED,
    answered,
    close,
    expected_effects,
    numbers,
    pick,
    serving,
    settle,
    shown_effects,
    started,
    swept,
)
from opened import FEW

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
