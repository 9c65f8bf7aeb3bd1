"""The page in a real browser: opened from disk without a network, it says what was computed, and does what it says."""

import re
import time
from xml.etree import ElementTree

import numpy as np
import pytest
import synthetic
from browsing import CHROMIUM, opening
from opened import FEW, HOSTILE, example, rows_of, saved, with_prompts

import hydrascope as hs
from hydrascope import measures
from hydrascope.summary import sentences, summarise, written

#: What layers write in ablated runs, under each reading of σ.
SIGMA = {"clean": "unembed_ablated", "own": "unembed_ablated_own"}


@pytest.fixture(scope="module")
def results():
    return example()


@pytest.fixture(scope="module")
def file(tmp_path_factory, results):
    return hs.report(results, tmp_path_factory.mktemp("page") / "a.html", bootstrap=FEW).as_uri()


@pytest.fixture
def opened(browser):
    """Opens an address without a network, and waits until the page is drawn."""
    with opening(browser, offline=True) as open_page:

        def open_and_wait(address, **media):
            page = open_page(address, **media)
            page.wait_for_selector("body[data-drawn]")
            return page

        yield open_and_wait


def drawn(page, act):
    """Do something, and wait until the page has been drawn again."""
    before = page.evaluate("document.body.dataset.drawn")
    act()
    page.wait_for_function("before => document.body.dataset.drawn !== before", arg=before)


def layers(depth=4):
    return [f"{kind}.{layer}" for kind in ("attn", "mlp") for layer in range(depth)]


PARTS = [*layers(), "head.2.1"]


def cell(page, ablated, component):
    """The middle of a cell, on the screen: the first row is at the bottom."""
    page.locator("#matrix-keys").scroll_into_view_if_needed()
    box = page.locator("#matrix canvas").bounding_box()
    across, down = (layers().index(component) + 0.5) / 8, (PARTS.index(ablated) + 0.5) / 9
    return box["x"] + across * box["width"], box["y"] + (1 - down) * box["height"]


def numbers(text):
    return [float(each.replace("−", "-")) for each in re.findall(r"−?\d+\.\d+", text)]


def test_the_first_screen_says_the_verdict(opened, file, results):
    page = opened(file)
    assert page.locator("#verdict p").all_text_contents() == sentences(summarise(results, FEW))
    assert page.locator("#model").text_content() == "synthetic"
    assert page.locator("#matrix canvas").bounding_box()["y"] < 900
    assert page.locator("#run").text_content().count("40") == 1


def test_pointing_at_a_cell_says_its_number(opened, file, results):
    page = opened(file)
    sure = measures.responses(measures.per_prompt(results, "logit"), FEW)
    for ablated, component in (("attn.0", "mlp.3"), ("mlp.1", "attn.2"), ("head.2.1", "mlp.2"), ("attn.2", "attn.3")):
        page.mouse.move(*cell(page, ablated, component))
        said = page.locator("#tip").text_content()
        assert said.startswith(f"{ablated} ablated, {component}: ")
        assert said.endswith(" logits")
        expected = sure.sel(ablated=ablated, component=component).values
        np.testing.assert_allclose(numbers(said.split(": ")[1]), expected, atol=0.006 * abs(expected).max())
    page.mouse.move(*cell(page, "mlp.3", "attn.0"))
    assert page.locator("#tip").text_content() == "mlp.3 ablated, attn.0: nothing: not downstream"


def test_choosing_a_part_changes_all_views(opened, file, results):
    page = opened(file)
    drawn(page, lambda: page.mouse.click(*cell(page, "mlp.1", "mlp.2")))
    assert page.locator("#part").input_value() == str(PARTS.index("mlp.1"))
    assert page.locator("#chosen").text_content() == "mlp.1 ablated"
    for view in ("trace", "scatter"):
        assert "mlp.1" in page.locator(f"#{view} .plot").get_attribute("aria-label")
    at = results.isel(readout=0).sel(ablated="mlp.1")
    direct = at["direct"].astype(float).mean("patch").values
    total = at["total"].astype(float).mean("patch").values
    for row, cells in enumerate(page.locator("#rows tbody tr:not(.gap)").all()[:5]):
        shown = numbers(" ".join(cells.locator("td").all_text_contents()[3:]))
        np.testing.assert_allclose(shown, [-direct[row], -total[row], (total - direct)[row]], atol=0.006)
    kept = rows_of(saved(page, "Save the table as CSV"))
    np.testing.assert_allclose([float(row["restored"]) for row in kept], total - direct, rtol=1e-5, atol=1e-6)


def test_a_prompt_is_chosen_everywhere(opened, file, results):
    page = opened(f"{file}#part=attn.1")
    drawn(page, lambda: page.locator("#row-7").click())
    assert page.locator("#story pre").text_content() == str(results["text"].values[7])
    assert page.locator("#scatter .chosen").count() == 1
    assert page.locator("#prompt").input_value() == "7"
    assert "prompt 7" in page.locator("#trace h3").text_content()
    at = results.isel(readout=0, prompt=7)
    for row in rows_of(saved(page, "Save the layers as CSV")):
        clean = at["unembed"].sel(component=row["component"])
        np.testing.assert_allclose(float(row["intact"]), clean, rtol=1e-6)
        ablated = results["unembed_ablated"].isel(readout=0).sel(ablated="attn.1", component=row["component"]).values
        np.testing.assert_allclose(float(row["ablated run"]), ablated[7], atol=float(np.ptp(ablated)) / 4000 + 1e-6)
    point = page.locator("#scatter .point").nth(3).bounding_box()
    drawn(page, lambda: page.mouse.click(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2))
    assert page.locator("#prompt").input_value() == page.locator("tr[aria-selected=true] td").first.text_content()
    drawn(page, lambda: page.get_by_role("button", name="Back to the mean").click())
    assert page.locator("#story").is_hidden()
    assert "mean over 40 prompts" in page.locator("#trace h3").text_content()


def boxes(page):
    """The tokens of the story: what each reads as, and how it is marked."""
    return page.locator("#boxes li").evaluate_all(
        """boxes => boxes.map((each) => [each.firstChild.textContent, each.children[0]?.textContent ?? ""])"""
    )


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


def test_a_prompt_that_stands_alone_has_its_story(opened, tmp_path, results):
    one = results.isel(prompt=[4])
    page = opened(hs.report(one, tmp_path / "a.html", bootstrap=FEW).as_uri())
    assert page.locator("#story pre").text_content() == str(one["text"].values[0])
    assert "".join(text for text, _ in boxes(page)) == str(one["text"].values[0])
    assert page.locator("#rows").is_hidden()
    assert page.get_by_role("button", name="Back to the mean").is_hidden()


def test_a_result_without_tokens_is_shown_by_its_text(opened, tmp_path, results):
    without = results.drop_vars(["token_id", "token_text", "token_ablated"])
    page = opened(f"{hs.report(without, tmp_path / 'a.html', bootstrap=FEW).as_uri()}#prompt=1")
    assert page.locator("#story pre").text_content() == str(results["text"].values[1])
    assert page.locator("#boxes").is_hidden()
    assert page.locator("#marks").is_hidden()


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


def test_another_readout_changes_all_views(opened, file, results):
    page = opened(file)
    before = page.locator("#said").text_content()
    drawn(page, lambda: page.get_by_label("Readout").select_option(label="placebo.0"))
    assert page.locator("#verdict p").all_text_contents() == sentences(summarise(results, FEW, "placebo.0"))
    assert page.locator("#said").text_content() != before
    assert "placebo.0" in page.locator("#matrix figcaption").text_content()
    sure = measures.responses(measures.per_prompt(results, "placebo.0"), FEW)
    for row in rows_of(saved(page, "Save the matrix as CSV")):
        expected = sure.sel(ablated=row["ablated"], component=row["responding layer"]).values
        found = [float(row[name] or "nan") for name in ("mean", "low", "high")]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def everything(page):
    """What the page says, view by view."""
    return {
        "verdict": page.locator("#verdict p").all_text_contents(),
        "said": page.locator("#said").text_content(),
        "read": re.findall(r"Readout: [^.]*", page.locator("main").text_content()),
        "matrix": rows_of(saved(page, "Save the matrix as CSV")),
        "layers": rows_of(saved(page, "Save the layers as CSV")),
        "prompts": rows_of(saved(page, "Save the prompts as CSV")),
        "scatter": page.locator("#scatter").inner_html(),
        "table": page.locator("#rows tbody tr:not(.gap)").all_text_contents()[:10],
        "story": page.locator("#story").text_content(),
    }


@pytest.mark.parametrize("sigma", SIGMA)
def test_the_reading_of_sigma_is_chosen(opened, file, results, sigma):
    """All that depends on it changes, in every view and in what is saved; removed, lost and restored don't."""
    name, control = measures.SIGMA_NAME[sigma].removeprefix("at "), "Ablated runs read at"
    other = next(each for each in SIGMA if each != sigma)
    page = opened(f"{file}#part=attn.2&prompt=7&sigma={other}")
    before = everything(page)
    drawn(page, lambda: page.get_by_label(control).select_option(label=name))
    after = everything(page)
    assert [key for key in after if after[key] != before[key]] == ["verdict", "said", "read", "matrix", "layers"]
    found = summarise(results, FEW, "logit", sigma)
    assert after["verdict"] == sentences(found)
    (part,) = (each for each in found.parts if each.ablated == "attn.2")
    shares = f"attention {written(part.attention, 2)}, MLPs {written(part.mlp, 2)}, the norm {written(part.norm, 2)}"
    assert after["said"].endswith(f"by {shares}, at {name}.")
    assert after["read"] == [f"Readout: logit, at {name}"] * 2
    sure = measures.responses(measures.per_prompt(results, "logit", sigma), FEW)
    for row in after["matrix"]:
        expected = sure.sel(ablated=row["ablated"], component=row["responding layer"]).values
        shown = [float(row[bound] or "nan") for bound in ("mean", "low", "high")]
        np.testing.assert_allclose(shown, expected, rtol=1e-5, atol=1e-7)
    ablated = results[SIGMA[sigma]].isel(readout=0).sel(ablated="attn.2")
    for row in after["layers"]:
        at = ablated.sel(component=row["component"]).values
        np.testing.assert_allclose(float(row["ablated run"]), at[7], atol=float(np.ptp(at)) / 4000 + 1e-6)
    for row in (*after["matrix"], *after["layers"]):
        assert (row["readout"], row["sigma"]) == ("logit", sigma)


def test_what_a_reaction_is_worth_does_not_depend_on_sigma(opened, tmp_path):
    model, prompts = hs.load_model("phantom"), hs.load_prompts("phantom").limit(8)
    results = hs.sweep(model, prompts, hs.Resample(patches=2), ablate=hs.Mediation("attn.3", "layers"))
    page = opened(hs.report(results, tmp_path / "a.html", bootstrap=FEW).as_uri())
    drawn(page, lambda: page.locator("#picture").select_option(label="Lost again without it"))
    before = page.locator("#matrix").inner_html(), saved(page, "Save the matrix as CSV")
    assert rows_of(before[1])[0]["sigma"] == ""
    drawn(page, lambda: page.locator("#sigma").select_option("1"))
    assert (page.locator("#matrix").inner_html(), saved(page, "Save the matrix as CSV")) == before
    drawn(page, lambda: page.locator("#picture").select_option(label="Response"))
    assert "at each run’s own σ" in page.locator("#matrix figcaption").text_content()


def test_inside_the_network_there_is_no_reading_to_choose(opened, tmp_path):
    results = example(readouts={"logit": -1, "inner": 2})
    page = opened(hs.report(results, tmp_path / "a.html", bootstrap=FEW).as_uri() + "#sigma=own")
    drawn(page, lambda: page.get_by_label("Readout").select_option(label="inner"))
    assert page.locator("#sigma").is_hidden()
    assert "Readout: inner, before block 2, without a norm" in page.locator("#matrix figcaption").text_content()
    assert {row["sigma"] for row in rows_of(saved(page, "Save the layers as CSV"))} == {""}
    drawn(page, lambda: page.get_by_label("Readout").select_option(label="logit"))
    assert page.locator("#sigma").input_value() == "1"
    assert "at each run’s own σ" in page.locator("#matrix figcaption").text_content()


@pytest.mark.parametrize("sigma", SIGMA)
def test_every_patch_is_a_faint_line(opened, file, results, sigma):
    page = opened(f"{file}#part=attn.1&sigma={sigma}")
    assert page.locator("#trace .patch").count() == 0
    drawn(page, lambda: page.locator("#row-7").click())
    assert "one patch" in page.locator("#trace svg").text_content()
    at = results.isel(readout=0, prompt=7).sel(ablated="attn.1")
    expected = at["unembed_ablated_by_patch"].astype(float) * (at["scale"] if sigma == "own" else 1)
    for panel, kind in enumerate(("attn", "mlp")):
        own = [f"{kind}.{layer}" for layer in range(4)]
        clean = at["unembed"].sel(component=own).values
        # What is drawn of the intact run says which height is which number.
        slope, start = np.polyfit(clean, heights(page.locator("#trace path.intact").nth(panel)), 1)
        lines = page.locator(f"#trace path.{kind}.patch")
        assert lines.count() == 2
        for patch, line in enumerate(lines.all()):
            values = expected.isel(patch=patch).sel(component=own).values
            np.testing.assert_allclose(heights(line), start + slope * values, atol=0.3)
        widths = [width_of(each) for each in (lines.first, page.locator(f"#trace path.{kind}:not(.patch)"))]
        assert widths[0] < widths[1]
    for row in rows_of(saved(page, "Save the layers as CSV")):
        found = [float(row[f"patch {patch}"]) for patch in (0, 1)]
        np.testing.assert_allclose(found, expected.sel(component=row["component"]), atol=2e-3)


def width_of(line):
    return line.evaluate("line => parseFloat(getComputedStyle(line).strokeWidth)")


def heights(line):
    """Where a line's points stand, from above, in pixels."""
    return [float(each) for each in re.findall(r",(-?[\d.]+)", line.get_attribute("d"))]


def test_patches_that_are_not_kept_are_said(opened, tmp_path, results, monkeypatch):
    monkeypatch.setattr("hydrascope.page.traces.PATCH_BYTES", 3 * 2 * 2 * 2 * 9 * 2 * 8)
    page = opened(hs.report(results, tmp_path / "a.html", bootstrap=FEW).as_uri())
    said = "Single patches are kept for prompts 0–2 alone."
    for prompt, kept in ((2, True), (3, False), ("", None)):
        drawn(page, lambda prompt=prompt: page.locator("#prompt").select_option(str(prompt)))
        assert (page.locator("#trace path.patch").count() == 4) == bool(kept)
        assert (said in page.locator("#trace figcaption").text_content()) == (kept is False)


def test_the_address_holds_what_is_chosen(opened, file):
    page = opened(file)
    drawn(page, lambda: page.get_by_label("Readout").select_option(label="placebo.0"))
    drawn(page, lambda: page.locator("#sigma").select_option("1"))
    drawn(page, lambda: page.locator("#part").select_option(label="head.2.1"))
    drawn(page, lambda: page.locator("#row-5").click())
    assert "sigma=own" in page.url
    again = opened(page.url)
    for name in ("readout", "sigma", "part", "prompt"):
        assert again.locator(f"#{name}").input_value() == page.locator(f"#{name}").input_value() != ""
    assert again.locator("#chosen").text_content() == "head.2.1 ablated"
    drawn(again, lambda: again.evaluate("location.hash = 'part=mlp.0'"))
    assert again.locator("#chosen").text_content() == "mlp.0 ablated"
    assert again.locator("#story").is_hidden()


def test_an_address_that_names_nothing_is_passed_over(opened, file):
    page = opened(f"{file}#part=attn.99&prompt=1e9&readout=<b>&picture=%00&x=%E0%A4%A")
    assert page.locator("#chosen").text_content() == opened(file).locator("#chosen").text_content()


def test_keys_alone_are_enough(opened, file):
    page = opened(f"{file}#part=attn.1")
    page.locator("#matrix .plot").focus()
    for key in ("ArrowRight", "End"):
        page.keyboard.press(key)
    assert page.locator("#live").text_content().startswith("attn.1 ablated, mlp.3: ")
    page.keyboard.press("ArrowUp")
    assert page.locator("#live").text_content().startswith("attn.2 ablated, mlp.3: ")
    drawn(page, lambda: page.keyboard.press("Enter"))
    assert page.locator("#chosen").text_content() == "attn.2 ablated"
    page.keyboard.press("ArrowLeft")
    assert page.locator("#live").text_content().startswith("attn.2 ablated, mlp.2: ")
    page.locator("#trace .plot").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#live").text_content().startswith("attn.0: intact ")
    page.locator("#scatter .plot").focus()
    page.keyboard.press("End")
    drawn(page, lambda: page.keyboard.press("Enter"))
    assert page.locator("#story").is_visible()
    page.locator("#rows table").focus()
    drawn(page, lambda: page.keyboard.press("End"))
    assert page.locator("#rows table").get_attribute("aria-activedescendant") == "row-39"
    assert page.locator("#row-39").is_visible()
    drawn(page, lambda: page.keyboard.press("Escape"))
    assert page.locator("#story").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_amiss(opened, file, pairs, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core isn't installed").Axe()
    for address in (file, pairs[1]):
        found = axe.run(opened(f"{address}#prompt=2", color_scheme=scheme)).response
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]] == []
        assert {"color-contrast", "label", "select-name"} <= {each["id"] for each in found["passes"]}


def test_everything_that_can_be_focused_has_a_name(opened, file):
    page = opened(file)
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    focusable = [
        each
        for each in nodes
        if any(p["name"] == "focusable" and p["value"]["value"] for p in each.get("properties", ()))
        and each["role"]["value"] != "RootWebArea"
    ]
    assert len(focusable) > 20
    assert [each["role"]["value"] for each in focusable if not each["name"]["value"].strip()] == []


def test_views_are_saved_as_pictures(opened, file):
    page = opened(f"{file}#sigma=own&prompt=3")
    for view, name in (("matrix", "the matrix"), ("trace", "the layers"), ("scatter", "the prompts")):
        root = ElementTree.fromstring(saved(page, f"Save {name} as SVG"))
        space = "{http://www.w3.org/2000/svg}"
        assert root.tag == f"{space}svg"
        assert len(root.findall(f".//{space}text")) > 5, view
        assert len(root.findall(f".//{space}image")) == (view == "matrix")
        said = [each.text for each in root.findall(f".//{space}text")]
        assert ("Readout: logit" if view == "scatter" else "Readout: logit, at each run’s own σ") in said
        assert saved(page, f"Save {name} as PNG").startswith(b"\x89PNG")
        with page.expect_download() as kept:
            page.get_by_role("button", name=f"Save {name} as CSV").click()
        assert kept.value.suggested_filename.endswith("-logit.csv" if view == "scatter" else "-logit-own.csv")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_say_the_sign(opened, file, results, scheme):
    """Red above 0, blue below; no colour where nothing can be measured."""
    page = opened(file, color_scheme=scheme)
    pixels = page.evaluate(
        """() => {
            const canvas = document.querySelector("#matrix canvas");
            return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
        }"""
    )
    pixels = np.array(pixels).reshape(9, 8, 4)[::-1].astype(int)
    sure = measures.responses(measures.per_prompt(results, "logit"), FEW)
    mean = sure.sel(bound="estimate", ablated=PARTS, component=layers()).values
    red, blue = pixels[..., 0], pixels[..., 2]
    weighty = abs(mean) > 0.3 * np.nanquantile(abs(mean), 0.99)
    assert ((red > blue) == (mean > 0))[weighty].all()
    assert (abs(red - blue) < 20)[np.isnan(mean)].all()
    assert weighty.sum() > 3


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


def test_a_thousand_prompts(opened, tmp_path):
    results = example(by_patch=False).isel(prompt=np.arange(1209) % 40)
    texts = [f"prompt {i} of {'many' if i % 3 else 'few'}" for i in range(1209)]
    page = opened(hs.report(with_prompts(results, texts), tmp_path / "a.html", bootstrap=FEW).as_uri())
    assert page.locator("#rows tbody tr:not(.gap)").count() < 60
    page.get_by_label("Search").fill("OF FEW")
    assert page.locator("#found").text_content() == "403 of 1,209"
    page.get_by_role("button", name="Removed").click()
    first = numbers(page.locator("#rows tbody tr:not(.gap)").first.text_content().split("”")[-1])[0]
    direct = results["direct"].isel(readout=0).sel(ablated=page.locator("#chosen").text_content().split()[0])
    np.testing.assert_allclose(first, -direct.astype(float).mean("patch").values[::3].min(), atol=0.006)
    page.locator("#rows table").focus()
    drawn(page, lambda: page.keyboard.press("End"))
    chosen = page.locator("tr[aria-selected=true]")
    assert chosen.count() == 1
    assert int(chosen.locator("td").first.text_content()) % 3 == 0


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Interactions of some layers, and their page."""
    results = synthetic.pairs(["attn.0", "attn.1", "mlp.1", "head.2.1"], 30)
    return results, hs.report(results, tmp_path_factory.mktemp("pairs") / "a.html", bootstrap=FEW).as_uri()


def test_interactions_say_who_covers_for_whom(opened, pairs):
    results, file = pairs
    page = opened(file)
    assert page.locator("#verdict p").all_text_contents() == sentences(summarise(results, FEW))
    assert "Surely each for the other in 3 of 6 pairs" in page.locator("#verdict").text_content()
    assert page.locator("#matrix h2").text_content() == "Interaction: mean over 30 prompts"
    found = measures.interactions(results)["interaction"].isel(readout=0).mean("prompt", skipna=False)
    rows = rows_of(saved(page, "Save the matrix as CSV"))
    assert len(rows) == 16
    for row in rows:
        expected = float(found.sel(first=row["ablated"], second=row["ablated with it"]))
        np.testing.assert_allclose(float(row["mean"] or "nan"), expected, rtol=1e-5, atol=1e-6)
    page.locator("#matrix .plot").focus()
    page.keyboard.press("Home")
    assert page.locator("#live").text_content() == "attn.0 and attn.0: nothing: no pair"
    page.keyboard.press("ArrowRight")
    said = page.locator("#live").text_content()
    assert said.startswith("attn.0 and attn.1: −0.")
    np.testing.assert_allclose(numbers(said.split(": ")[1])[0], found.values[0, 1], atol=0.006)


def test_views_that_were_not_kept_are_left_out_with_a_word(opened, pairs):
    page = opened(pairs[1])
    assert page.locator("#trace").is_hidden()
    assert page.locator("#scatter").is_visible()
    assert "measure again and keep means (--keep means)" in page.locator("#without").text_content()
    drawn(page, lambda: page.locator("#part").select_option(label="mlp.1"))
    drawn(page, lambda: page.locator("#row-4").click())
    total = pairs[0]["total"].isel(readout=0, patch=0, prompt=4).sel(ablated="mlp.1")
    shown = numbers(page.locator("#becomes").text_content())[-3:]
    np.testing.assert_allclose(shown, [-1.2 * total, 0.2 * -total, -total], atol=0.006)
    again = opened(page.url)
    assert again.locator("#chosen").text_content() == "mlp.1 ablated"
    assert again.locator("#story").is_visible()


def test_effects_alone_have_no_matrix(opened, tmp_path, results):
    alone = results.drop_vars([name for name in results if str(name).startswith("unembed_")])
    page = opened(hs.report(alone.assign_attrs(keep="effects"), tmp_path / "a.html", bootstrap=FEW).as_uri())
    for view in ("matrix", "trace", "warnings li", "without"):
        assert page.locator(f"#{view}").first.is_visible() == (view == "without")
    drawn(page, lambda: page.get_by_label("Readout").select_option(label="placebo.0"))
    drawn(page, lambda: page.locator("#part").select_option(label="attn.1"))
    at = results.sel(readout="placebo.0", ablated="attn.1")
    kept = rows_of(saved(page, "Save the table as CSV"))
    total = at["total"].astype(float).mean("patch")
    np.testing.assert_allclose([float(row["lost"]) for row in kept], -total, rtol=1e-5, atol=1e-6)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_all_pairs_of_heads_are_quick(opened, tmp_path):
    heads = synthetic.head_labels(12, 12)
    file = hs.report(synthetic.pairs(heads, 30), tmp_path / "a.html", bootstrap=FEW)
    assert file.stat().st_size < 1.5e6
    start = time.monotonic()
    page = opened(file.as_uri())
    drawn(page, lambda: page.locator("#part").select_option(label="head.7.3"))
    assert time.monotonic() - start < 5
    assert len(rows_of(saved(page, "Save the matrix as CSV"))) == 144 * 144


def test_a_phone_shows_all_without_scrolling_sideways(browser, file):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(file)
    page.wait_for_selector("body[data-drawn]")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("#matrix canvas").bounding_box()["width"] > 250
    page.close()


@pytest.mark.parametrize("width", [390, 968, 1280])
def test_what_a_layer_writes_fits_its_button_at_any_width(browser, file, width):
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(file)
    page.wait_for_selector("body[data-drawn]")
    for button in page.locator("#column button.part").all():
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
    for plot in page.locator(".plot").all():
        assert plot.locator("svg").get_attribute("width") == str(plot.evaluate("each => each.clientWidth"))
    with_bars.close()


def test_the_network_as_a_column_says_what_every_layer_writes_and_ablates_what_is_clicked(opened, file, results):
    page = opened(f"{file}#part=mlp.1")
    effects = measures.per_prompt(results, str(results["readout"].values[0])).sel(ablated="attn.2")
    drawn(page, lambda: page.get_by_role("button", name=re.compile(r"^attn\.2, writes")).click())
    assert page.evaluate("new URLSearchParams(location.hash.slice(1)).get('part')") == "attn.2"
    for name in layers():
        said = page.locator(f"#column [data-part='{name}']").get_attribute("aria-label").replace("−", "-")
        intact, ablated = map(float, re.search(r"writes (\S+), in this run (\S+)", said).groups())
        here = effects.sel(component=name)
        assert intact == pytest.approx(float(here["unembed"].mean()), abs=0.006)
        assert ablated == pytest.approx(float(here["unembed_ablated"].mean()), abs=0.006)
    assert page.locator("#column [aria-pressed=true]").get_attribute("data-part") == "attn.2"
    drawn(page, lambda: page.locator("#prompt").select_option("1"))
    assert page.locator("#column-title").text_content() == "The network, intact and with attn.2 ablated: prompt 1"
    said = page.locator("#column [data-part='attn.2']").get_attribute("aria-label").replace("−", "-")
    expected = float(effects["unembed"].isel(prompt=1).sel(component="attn.2"))
    assert float(re.search(r"writes ([^\s,]+)", said)[1]) == pytest.approx(expected, abs=0.006)


def test_a_layer_that_was_not_ablated_cannot_be_clicked_in_the_column(opened, results, tmp_path):
    one = results.isel(ablated=[list(results["ablated"].values).index("attn.1")])
    page = opened(hs.report(one, tmp_path / "one.html", bootstrap=FEW).as_uri())
    assert page.locator("#column button:enabled").evaluate_all("found => found.map(each => each.dataset.part)") == [
        "attn.1"
    ]
