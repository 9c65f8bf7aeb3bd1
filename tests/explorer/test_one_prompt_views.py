"""The map, the next tokens and the attention of a typed prompt, in a browser."""

import numpy as np
import pytest
from exploring import (
    PATCHES,
    TYPED,
    answered,
    ask,
    numbers,
    pick,
    settle,
    shown_weights,
    started,
)
from opened import rows_of, saved

import hydrascope as hs


@pytest.mark.slow
def test_what_a_head_attends_to_is_shown_before_and_after(opened, session, address):
    page = started(opened, address)
    assert page.locator("#attention").is_hidden()
    settle(page, "ablation", "zero")
    answered(page, lambda: page.locator("#heads-of").select_option("2"))
    assert "Point at a head" in page.locator("#attention p").text_content()
    assert page.locator("#attention ol").is_hidden()

    def expected(head, run="attn.0|mlp.1"):
        return hs.analyses.attention(session.model, TYPED, run, head)["attention"].isel(head=0)

    page.locator("button[data-component='head.2.3']").hover()
    tokens, shares = shown_weights(page)
    assert tokens == list(TYPED)
    assert list(shares) == ["clean"]
    np.testing.assert_allclose(shares["clean"], expected("head.2.3")[0], atol=0.0006)
    pick(page, "attn.0")
    pick(page, "mlp.1", "frozen")
    page.locator("button[data-component='head.2.0']").focus()
    page.keyboard.press("ArrowRight")
    tokens, shares = shown_weights(page)
    found = expected("head.2.1")
    assert list(shares) == ["clean", "attn.0", "attn.0|mlp.1"] == found["state"].values.tolist()
    for state, weights in shares.items():
        np.testing.assert_allclose(weights, found.sel(state=state), atol=0.0006)
    assert "Attention of head.2.1 from the last token" in page.locator("#attention p").text_content()
    most = TYPED[int(found[0].values.argmax())]
    said = page.locator("#live").text_content()
    assert said.startswith(f"head.2.1 attends most to “{most}”: clean ")
    np.testing.assert_allclose(numbers(said.partition("clean ")[2])[0], 100 * float(found[0].max()), atol=0.06)
    # The darkest box is that of the largest weight.
    cells = page.locator("#attention li:not(:first-child) span:nth-child(2)")
    share = cells.evaluate_all("all => all.map((each) => parseFloat(each.style.getPropertyValue('--share')))")
    assert share == pytest.approx((50 * found[0]).values.tolist(), abs=1e-3)
    answered(page, lambda: page.locator("#heads-of").select_option("1"))
    assert "head.2" not in page.locator("#attention").text_content()
    answered(page, lambda: page.locator("#heads-of").select_option(""))
    assert page.locator("#attention").is_hidden()


@pytest.mark.slow
def test_next_tokens_stand_side_by_side(opened, session, address):
    page = started(opened, address)
    settle(page, "ablation", "zero")
    pick(page, "mlp.2")
    pick(page, "attn.0")
    pick(page, "mlp.1", "frozen")
    table = page.locator("#found-next table")
    states = ["clean", "mlp.2+attn.0", "mlp.2+attn.0|mlp.1"]
    assert table.locator("thead th").all_text_contents()[1:] == states
    found = hs.analyses.next_tokens(session.model, TYPED, states[-1])
    rows = [row.locator("td").all_text_contents() for row in table.locator("tbody tr").all()]
    assert len(rows) == 10
    for place, row in enumerate(rows):
        for state, cell in enumerate(row):
            of = found.isel(state=state, place=place)
            moved = int(of["rank"]) - place
            arrow = f" ↑{moved}" if moved > 0 else f" ↓{-moved}" if moved else ""
            assert cell.startswith(f"“{of['text'].values}” ")
            assert numbers(cell.removesuffix(arrow).rpartition("” ")[2]) == pytest.approx(
                [100 * float(of["probability"])], abs=0.06
            )
            assert cell.endswith(f"%{arrow}")
    for name in ("mlp.2", "attn.0"):
        pick(page, name)
    assert table.count() == 0


def test_a_prompt_is_mapped(opened, session, address):
    page = started(opened, address)
    settle(page, "ablation", "zero")
    answered(page, lambda: page.locator("#draw-map").click())
    found = hs.analyses.position_map(session.model, TYPED)
    rows = rows_of(saved(page, "Save the map as CSV"))
    assert len(rows) == found["cost"].size
    for row in rows:
        cell = found["cost"].isel(token=int(row["token"])).sel(component=row["component"])
        assert float(row["cost"]) == pytest.approx(float(cell), rel=1e-6, abs=1e-12)
        assert (row["text"], row["ablation"]) == (TYPED[int(row["token"])], "zero")
    token, component = np.unravel_index(np.argmax(found["cost"].values), found["cost"].shape)
    first, name = page.locator("#map-named li").first.text_content(), found["component"].values[component]
    assert first.startswith(f"{name} at “{TYPED[token].strip() or '␣'}” (token {token})")
    assert numbers(first)[-1] == pytest.approx(float(found["cost"].max()), rel=0.005)
    # A dot for each gain of a size, and only there.
    struck = 3 * 0.1
    assert page.locator("#map .gain").count() == int((found["cost"] <= -struck).sum())
    # The scale of colours above it ends at what its colours end at.
    ends = [float(text.replace("−", "-")) for text in page.locator("#map text[y='28']").all_text_contents()]
    assert ends == sorted(ends)
    assert -ends[0] == ends[-1] >= float(abs(found["cost"]).max())
    assert 0 in ends
    page.locator("#map .plot").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowUp")
    told = page.locator("#tip").text_content()
    before_last = found["cost"].isel(token=-2).sel(component="attn.0")
    assert told.startswith(f"attn.0 at “{TYPED[-2]}” (token {len(TYPED) - 2})")
    assert numbers(told)[-1] == pytest.approx(abs(float(before_last)), rel=0.01)
    assert (" gains " in told) == (float(before_last) < 0)
    assert b"What ablating there costs" in saved(page, "Save the map as SVG")
    # Another component makes no difference to it, another replacement does.
    pick(page, "attn.0")
    assert page.locator("#map .plot").is_visible()
    settle(page, "ablation", "noise")
    assert page.locator("#map .plot").is_hidden()


def test_what_cannot_be_mapped_is_said(opened, address):
    page = opened(f"{address}#patches={PATCHES}&ablation=mean")
    ask(page, "longer than all others")
    answered(page, lambda: page.locator("#draw-map").click())
    assert "none of the others has as many tokens as the prompt" in page.locator("#refused").text_content()
    assert page.locator("#map .plot").is_hidden()
    opened.told.clear()
