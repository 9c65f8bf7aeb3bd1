"""The page in a real browser: opened from disk without a network, it says what was computed, and does what it says."""

from xml.etree import ElementTree

import numpy as np
import pytest
from opened import FEW, rows_of, saved
from report_page import PARTS, SIGMA, cell, colours, drawn, layers, numbers
from rest_slow import rest_slow

from hydrascope import measures
from hydrascope.reports.colour_scale import removal_signs
from hydrascope.reports.kinds import summarise
from hydrascope.reports.summary import sentences
from hydrascope.reports.summary.verdict_text import clearest_first


def test_the_first_screen_says_the_verdict(opened, file, results):
    page = opened(file)
    assert page.locator("#verdict p").all_text_contents() == sentences(clearest_first(summarise(results, FEW)))
    assert page.locator("#model").text_content() == "synthetic"
    assert page.locator("#first-title").bounding_box()["y"] < 200
    assert page.locator(".first-picture .wide svg").bounding_box()["y"] < 300
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


def test_choosing_a_component_changes_all_views(opened, file, results):
    page = opened(file)
    drawn(page, lambda: page.mouse.click(*cell(page, "mlp.1", "mlp.2")))
    assert page.locator("#component").input_value() == str(PARTS.index("mlp.1"))
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


@pytest.mark.parametrize("sigma", SIGMA)
def test_ce_on_de_is_chosen(opened, file, results, sigma):
    """As in the paper's Figure 7; what can't be told says so."""
    page = opened(f"{file}#component=attn.2&sigma={sigma}")
    drawn(page, lambda: page.get_by_label("Points").select_option(label="CE on DE"))
    assert page.locator("#scatter h3").text_content() == "CE on DE (Figure 7) of attn.2, a point a prompt"
    assert page.locator("#scatter figcaption p").text_content() == f"Readout: logit, {measures.SIGMA_NAME[sigma]}."
    effects = measures.per_prompt(results, "logit", sigma)
    direct, compensated = (
        each.sel(ablated="attn.2").values
        for each in (effects["contribution"], measures.compensation(effects)["compensation"])
    )
    rows = rows_of(saved(page, "Save the prompts as CSV"))
    np.testing.assert_allclose([float(row["DE"]) for row in rows], direct, rtol=1e-5)
    np.testing.assert_allclose([float(row["CE"]) for row in rows], compensated, rtol=1e-5, atol=1e-6)
    assert {row["sigma"] for row in rows} == {sigma}
    assert page.locator("#scatter .point").count() == 40
    page.locator("#scatter .plot").focus()
    page.keyboard.press("Home")
    said = numbers(page.locator("#live").text_content())
    np.testing.assert_allclose(said, [direct.min(), compensated[direct.argmin()]], atol=0.006)
    assert "points=CE+on+DE" in page.url
    drawn(page, lambda: page.locator("#component").select_option(label="mlp.3"))
    assert page.locator("#scatter .fit").count() == 0


def test_a_prompt_is_chosen_everywhere(opened, file, results):
    page = opened(f"{file}#component=attn.1")
    drawn(page, lambda: page.locator("#row-7").click())
    assert page.locator("#story pre").text_content() == str(results["text"].values[7])
    assert page.locator("#scatter .chosen").count() == 1
    assert page.locator("#prompt").input_value() == "7"
    assert "prompt 7" in page.locator("#trace h3").text_content()
    at = results.isel(readout=0, prompt=7)
    for row in rows_of(saved(page, "Save the sublayers as CSV")):
        clean = at["unembed"].sel(component=row["component"])
        np.testing.assert_allclose(float(row["clean"]), clean, rtol=1e-6)
        ablated = results["unembed_ablated"].isel(readout=0).sel(ablated="attn.1", component=row["component"]).values
        np.testing.assert_allclose(float(row["ablated run"]), ablated[7], atol=float(np.ptp(ablated)) / 4000 + 1e-6)
    point = page.locator("#scatter .point").nth(3).bounding_box()
    drawn(page, lambda: page.mouse.click(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2))
    assert page.locator("#prompt").input_value() == page.locator("tr[aria-selected=true] td").first.text_content()
    drawn(page, lambda: page.get_by_role("button", name="Back to the mean").click())
    assert page.locator("#story").is_hidden()
    assert "mean over 40 prompts" in page.locator("#trace h3").text_content()


def test_the_address_holds_what_is_chosen(opened, file):
    page = opened(file)
    drawn(page, lambda: page.get_by_label("Readout").select_option(label="placebo.0"))
    drawn(page, lambda: page.locator("#sigma").select_option("1"))
    drawn(page, lambda: page.locator("#component").select_option(label="head.2.1"))
    drawn(page, lambda: page.locator("#row-5").click())
    assert "sigma=own" in page.url
    again = opened(page.url)
    for name in ("readout", "sigma", "component", "prompt"):
        assert again.locator(f"#{name}").input_value() == page.locator(f"#{name}").input_value() != ""
    assert again.locator("#chosen").text_content() == "head.2.1 ablated"
    drawn(again, lambda: again.evaluate("location.hash = 'component=mlp.0'"))
    assert again.locator("#chosen").text_content() == "mlp.0 ablated"
    assert again.locator("#story").is_hidden()


def test_an_address_that_names_nothing_here_is_told(opened, file):
    page = opened(f"{file}#component=attn.99&prompt=1e9&readout=<b>&picture=%00&x=%E0%A4%A")
    assert page.locator("#chosen").text_content() == opened(file).locator("#chosen").text_content()
    told = page.locator("#unknown").text_content()
    assert "readout <b>, picture \0, component attn.99, prompt 1e9. It shows what it has." in told
    drawn(page, lambda: page.locator("#component").select_option("2"))
    assert page.locator("#unknown").is_hidden()
    assert opened(f"{file}#component=attn.1").locator("#unknown").is_hidden()


def test_back_undoes_a_choice(opened, file):
    page = opened(f"{file}#component=attn.1")
    for choice in (PARTS.index("mlp.2"), PARTS.index("head.2.1")):
        drawn(page, lambda choice=choice: page.locator("#component").select_option(str(choice)))
    for name in ("mlp.2", "attn.1"):
        drawn(page, page.go_back)
        assert page.locator("#chosen").text_content() == f"{name} ablated"
    drawn(page, page.go_forward)
    assert page.locator("#chosen").text_content() == "mlp.2 ablated"


def test_a_prompt_has_a_matrix_and_a_verdict_of_its_own(opened, file, results):
    page = opened(f"{file}#component=attn.2&prompt=3")
    effects = measures.per_prompt(results, "logit").isel(prompt=[3])
    moved = (effects["unembed_ablated"] - effects["unembed"]).isel(prompt=0).sel(ablated=PARTS, component=layers())
    downstream = effects["downstream"].sel(ablated=PARTS, component=layers())
    expected = moved.transpose("ablated", "component").values.astype(float)
    # Pages hold ablated values on a grid over all prompts.
    coarse = float(np.ptp(results["unembed_ablated"].values)) / 4000
    assert page.locator("#matrix h2").text_content() == "Response: prompt 3"
    table = {
        (each["ablated"], each["responding sublayer"]): each["mean"]
        for each in rows_of(saved(page, "Save the matrix as CSV"))
    }
    for row, ablated in enumerate(PARTS):
        for column, component in enumerate(layers()):
            if downstream.sel(ablated=ablated, component=component):
                found = float(table[ablated, component])
                assert found == pytest.approx(expected[row, column], abs=coarse)
            else:
                assert table[ablated, component] == ""
    of = measures.outcome(effects).isel(prompt=0).sel(ablated="attn.2")
    told = numbers(page.locator("#of-prompt").text_content())
    np.testing.assert_allclose(told, [float(of[name]) for name in ("restored", "removed", "lost")], atol=6e-3)
    drawn(page, lambda: page.locator("#prompt").select_option(""))
    assert page.locator("#of-prompt").count() == 0


def test_the_network_opens_at_the_ablated_component(opened, file):
    page = opened(f"{file}#component=attn.0")
    around, row = (
        page.locator("#sublayers .column").bounding_box(),
        page.locator("#column [data-component='attn.0']").bounding_box(),
    )
    assert around["y"] <= row["y"]
    assert row["y"] + row["height"] <= around["y"] + around["height"]
    assert page.locator("#column tbody th").first.evaluate("each => getComputedStyle(each).position") == "static"


def test_keys_alone_are_enough(opened, file):
    page = opened(f"{file}#component=attn.1")
    page.locator("#matrix .plot").focus()
    for key in ("ArrowRight", "End"):
        page.keyboard.press(key)
    assert page.locator("#live").text_content().startswith("attn.1 ablated, mlp.3: ")
    page.keyboard.press("ArrowUp")
    assert page.locator("#live").text_content().startswith("mlp.1 ablated, mlp.3: ")
    drawn(page, lambda: page.keyboard.press("Enter"))
    assert page.locator("#chosen").text_content() == "mlp.1 ablated"
    page.keyboard.press("ArrowLeft")
    assert page.locator("#live").text_content().startswith("mlp.1 ablated, attn.3: ")
    page.locator("#trace .plot").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#live").text_content().startswith("attn.0: clean ")
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


@pytest.mark.parametrize("scheme", rest_slow(["light", "dark"], ("dark",)))
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
    for view, name in (("matrix", "the matrix"), ("trace", "the sublayers"), ("scatter", "the prompts")):
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
def test_colours_say_what_goes_against_the_change(opened, file, results, scheme):
    """Blue against what the ablation removes, orange with it; empty where nothing can be measured."""
    page = opened(file, color_scheme=scheme)
    pixels = colours(page)
    mean, signs = _responses(results)
    red, blue = pixels[..., 0], pixels[..., 2]
    weighty = abs(mean * signs) > 0.3 * np.nanmax(abs(mean))
    assert ((blue > red) == (mean * signs > 0))[weighty].all()
    assert (pixels[..., 3] == np.where(np.isnan(mean), 0, 255)).all()
    assert weighty.sum() > 3
    assert page.locator("#matrix .unsure").count() == (signs == 0).sum()


@pytest.mark.parametrize("mode", ["compressed", "linear", "row"])
def test_no_colour_is_clipped(opened, file, results, mode):
    """Show the larger of two values on one side darker, up to the largest; blue darkens further than orange."""
    mean, signs = _responses(results)
    page = opened(f"{file}#component={PARTS[4]}")
    if mode != "compressed":
        drawn(page, lambda: page.locator("#scale").select_option(mode))
    rows = [4] if mode == "row" else range(len(PARTS))
    grey = (colours(page)[..., :3] @ [0.3, 0.59, 0.11])[rows]
    values = (mean * signs)[rows]
    for side in (1, -1):
        chosen = side * values > 0
        seen = grey[chosen][np.argsort(side * values[chosen])]
        assert (np.diff(seen) <= 1.5).all()
        assert len(set(seen[-3:].round())) == len(seen[-3:])
    assert grey[values > 0].min() < 80


def _responses(results):
    """The mean responses, as drawn, and the sign of what each ablation removes."""
    effects = measures.per_prompt(results, "logit")
    mean = measures.responses(effects, FEW).sel(bound="estimate", ablated=PARTS, component=layers()).values
    return mean, removal_signs(effects.sel(ablated=PARTS), FEW)[:, None]
