"""What a page shows of single prompts: tokens, stories, texts of any kind, and a thousand of them."""

import time

import numpy as np
import pytest
from opened import FEW, HOSTILE, example, with_prompts
from report_page import boxes, cell, drawn, numbers

import hydrascope as hs


def test_tokens_are_shown_as_tokens_and_the_subject_marked(opened, file, results):
    page = opened(f"{file}#prompt=2")
    tokens = [str(each) for each in results["token_text"].values[2] if each]
    found = boxes(page)
    assert [text for text, _ in found] == tokens
    assert {i: said for i, (_, said) in enumerate(found) if said} == {
        1: " (subject)",
        2: " (subject)",
        len(tokens) - 1: " (ablated)",
    }
    assert page.locator("#marks").text_content() == (
        f"Ablated, filled, at token {len(tokens) - 1}; its subject, underlined, is tokens 1 to 2. Tokens count from 0."
    )
    drawn(page, lambda: page.keyboard.press("Tab") or page.locator("#row-3").click())
    assert all(said in ("", " (ablated)") for _, said in boxes(page))
    assert "subject" not in page.locator("#marks").text_content()


@pytest.mark.slow
def test_a_prompt_that_stands_alone_has_its_story(opened, tmp_path, results):
    one = results.isel(prompt=[4])
    page = opened(hs.report(one, tmp_path / "a.html", bootstrap=FEW).as_uri())
    assert page.locator("#story pre").text_content() == str(one["text"].values[0])
    assert "".join(text for text, _ in boxes(page)) == str(one["text"].values[0])
    assert page.locator("#rows").is_hidden()
    assert page.get_by_role("button", name="Back to the mean").is_hidden()


@pytest.mark.slow
def test_a_result_without_tokens_is_shown_by_its_text(opened, tmp_path, results):
    without = results.drop_vars(["token_id", "token_text", "token_ablated"])
    page = opened(f"{hs.report(without, tmp_path / 'a.html', bootstrap=FEW).as_uri()}#prompt=1")
    assert page.locator("#story pre").text_content() == str(results["text"].values[1])
    assert page.locator("#boxes").is_hidden()
    assert page.locator("#marks").is_hidden()


@pytest.mark.slow
@pytest.mark.parametrize("marked", ["many", "all"])
def test_ten_thousand_tokens_are_quick(opened, tmp_path, results, marked):
    """Each a letter: made, laid out and drawn at once; what is marked is told in words."""
    wide = np.arange(10_000)
    ablated = np.isin(wide, [4_000, 5_000, 5_001, 9_999]) if marked == "many" else wide >= 0
    named = {
        "token_id": (("prompt", "token"), np.array([wide, np.where(wide < 3, wide, -1)])),
        "token_text": (("prompt", "token"), np.array([["<"] * 10_000, ["a"] * 3 + [""] * 9_997], object)),
        "token_ablated": (("prompt", "token"), np.array([ablated, wide == 2])),
    }
    two = results.isel(prompt=[0, 1]).drop_vars(list(named)).assign_coords(named)
    page = opened(hs.report(two, tmp_path / "a.html", bootstrap=FEW).as_uri())
    start = time.monotonic()
    drawn(page, lambda: page.locator("#row-0").click())
    first = page.locator("#boxes li").nth(np.flatnonzero(ablated)[0]).bounding_box()
    frame = page.locator("#boxes").bounding_box()
    assert frame["y"] - 1 <= first["y"] < frame["y"] + frame["height"] - first["height"]  # in sight
    assert time.monotonic() - start < 3
    assert page.locator("#boxes li").count() == 10_000
    expected = "tokens 4000, 5000 to 5001 and 9999" if marked == "many" else "all tokens"
    assert page.locator("#marks").text_content().startswith(f"Ablated, filled, at {expected}; its subject")
    drawn(page, lambda: page.locator("#row-1").click())
    assert [text for text, _ in boxes(page)] == ["a"] * 3


def whole(text):
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\ud800", "\ufffd")


def test_hostile_texts_stay_texts(opened, tmp_path, results):
    hostile = with_prompts(results, HOSTILE).assign_attrs(model="<img src=x onerror=alert(1)>")
    page = opened(hs.report(hostile, tmp_path / "a.html", bootstrap=FEW).as_uri())
    assert page.locator("#model").text_content() == "<img src=x onerror=alert(1)>"
    for prompt, text in enumerate(HOSTILE):
        drawn(page, lambda prompt=prompt: page.locator("#prompt").select_option(str(prompt)))
        # The half of a surrogate pair shows as what stands for no character.
        for shown in (page.locator("#story pre").text_content(), "".join(each for each, _ in boxes(page))):
            assert whole(shown) == whole(text)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.mouse.move(*cell(page, "attn.0", "mlp.3"))
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, #rows script, #story script, #prompt script").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.slow
def test_a_thousand_prompts(opened, tmp_path):
    results = example(by_patch=False).isel(prompt=np.arange(1209) % 40)
    texts = [f"prompt {i} of {'many' if i % 3 else 'few'}" for i in range(1209)]
    page = opened(hs.report(with_prompts(results, texts), tmp_path / "a.html", bootstrap=FEW).as_uri())
    assert page.locator("#rows tbody tr:not(.gap)").count() < 60
    page.get_by_label("Search").fill("OF FEW")
    assert page.locator("#found").text_content() == "403 of 1,209"
    page.get_by_role("button", name="Removed", exact=True).click()
    first = numbers(page.locator("#rows tbody tr:not(.gap)").first.text_content().split("”")[-1])[0]
    direct = results["direct"].isel(readout=0).sel(ablated=page.locator("#chosen").text_content().split()[0])
    np.testing.assert_allclose(first, -direct.astype(float).mean("patch").values[::3].min(), atol=0.006)
    page.locator("#rows table").focus()
    drawn(page, lambda: page.keyboard.press("End"))
    chosen = page.locator("tr[aria-selected=true]")
    assert chosen.count() == 1
    assert int(chosen.locator("td").first.text_content()) % 3 == 0
