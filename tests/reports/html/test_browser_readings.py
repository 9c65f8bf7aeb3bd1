"""What changes on a page with the readout, with σ, and with the patch."""

import re

import numpy as np
import pytest
import xarray as xr
from opened import FEW, example, rows_of, saved
from report_page import SIGMA, drawn
from rest_slow import rest_slow

import hydrascope as hs
from hydrascope import measures
from hydrascope.reports.kinds import summarise
from hydrascope.reports.summary import format_interval, sentences
from hydrascope.reports.summary.verdict_text import clearest_first


@pytest.mark.slow
def test_another_readout_changes_all_views(opened, file, results):
    page = opened(file)
    before = page.locator("#sentences").text_content()
    drawn(page, lambda: page.get_by_label("Readout").select_option(label="placebo.0"))
    assert page.locator("#verdict p:not(#of-prompt)").all_text_contents() == sentences(
        clearest_first(summarise(results, FEW, "placebo.0"))
    )
    assert page.locator("#sentences").text_content() != before
    assert "placebo.0" in page.locator("#matrix figcaption").text_content()
    sure = measures.responses(measures.per_prompt(results, "placebo.0"), FEW)
    for row in rows_of(saved(page, "Save the matrix as CSV")):
        expected = sure.sel(ablated=row["ablated"], component=row["responding sublayer"]).values
        found = [float(row[name] or "nan") for name in ("mean", "low", "high")]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def everything(page):
    """What the page says, view by view."""
    return {
        "verdict": page.locator("#verdict p:not(#of-prompt)").all_text_contents(),
        "sentences": page.locator("#sentences").text_content(),
        "read": re.findall(r"Readout: [^.]*", page.locator("main").text_content()),
        "matrix": rows_of(saved(page, "Save the matrix as CSV")),
        "sublayers": rows_of(saved(page, "Save the sublayers as CSV")),
        "prompts": rows_of(saved(page, "Save the prompts as CSV")),
        "scatter": page.locator("#scatter").inner_html(),
        "table": page.locator("#rows tbody tr:not(.gap)").all_text_contents()[:10],
        "story": page.locator("#story").text_content(),
    }


@pytest.mark.parametrize("sigma", rest_slow(SIGMA, ("own",)))
def test_the_reading_of_sigma_is_chosen(opened, file, results, sigma):
    """All that depends on it changes, in every view and in what is saved; removed, lost and restored don't."""
    name, control = measures.SIGMA_NAME[sigma].removeprefix("at "), "Ablated runs read at"
    other = next(each for each in SIGMA if each != sigma)
    page = opened(f"{file}#component=attn.2&prompt=7&sigma={other}")
    before = everything(page)
    drawn(page, lambda: page.get_by_label(control).select_option(label=name))
    after = everything(page)
    changed = [key for key in after if after[key] != before[key]]
    assert changed == ["verdict", "sentences", "read", "matrix", "sublayers"]
    found = summarise(results, FEW, "logit", sigma)
    assert after["verdict"] == sentences(clearest_first(found))
    (part,) = (each for each in found.components if each.ablated == "attn.2")
    shares = (
        f"attention {format_interval(part.attention, 2)}, MLPs {format_interval(part.mlp, 2)}, the norm "
        f"{format_interval(part.norm, 2)}"
    )
    assert after["sentences"].endswith(f"Shares: {shares}, at {name}.")
    assert after["read"] == [*[f"Readout: logit, at {name}"] * 2, "Readout: logit"]
    sure = measures.responses(measures.per_prompt(results, "logit", sigma), FEW)
    drawn(page, lambda: page.locator("#prompt").select_option(""))
    for row in everything(page)["matrix"]:
        expected = sure.sel(ablated=row["ablated"], component=row["responding sublayer"]).values
        shown = [float(row[bound] or "nan") for bound in ("mean", "low", "high")]
        np.testing.assert_allclose(shown, expected, rtol=1e-5, atol=1e-7)
    ablated = results[SIGMA[sigma]].isel(readout=0).sel(ablated="attn.2")
    for row in after["sublayers"]:
        at = ablated.sel(component=row["component"]).values
        np.testing.assert_allclose(float(row["ablated run"]), at[7], atol=float(np.ptp(at)) / 4000 + 1e-6)
    for row in (*after["matrix"], *after["sublayers"]):
        assert (row["readout"], row["sigma"]) == ("logit", sigma)


@pytest.mark.slow
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


@pytest.mark.slow
def test_inside_the_network_there_is_no_reading_to_choose(opened, tmp_path):
    results = example(readouts={"logit": -1, "inner": 2})
    page = opened(hs.report(results, tmp_path / "a.html", bootstrap=FEW).as_uri() + "#sigma=own")
    drawn(page, lambda: page.get_by_label("Readout").select_option(label="inner"))
    assert page.locator("#sigma").is_hidden()
    assert "Readout: inner, before block 2, without a norm" in page.locator("#matrix figcaption").text_content()
    assert {row["sigma"] for row in rows_of(saved(page, "Save the sublayers as CSV"))} == {""}
    drawn(page, lambda: page.get_by_label("Readout").select_option(label="logit"))
    assert page.locator("#sigma").input_value() == "1"
    assert "at each run’s own σ" in page.locator("#matrix figcaption").text_content()


@pytest.mark.parametrize("sigma", SIGMA)
def test_every_patch_is_a_faint_line(opened, file, results, sigma):
    page = opened(f"{file}#component=attn.1&sigma={sigma}")
    assert page.locator("#trace .patch").count() == 0
    drawn(page, lambda: page.locator("#row-7").click())
    assert "one patch" in page.locator("#trace svg").text_content()
    at = results.isel(readout=0, prompt=7).sel(ablated="attn.1")
    expected = at["unembed_ablated_by_patch"].astype(float) * (at["scale"] if sigma == "own" else 1)
    for panel, kind in enumerate(("attn", "mlp")):
        own = [f"{kind}.{block}" for block in range(4)]
        clean = at["unembed"].sel(component=own).values
        # What is drawn of the clean pass says which height is which number.
        slope, start = np.polyfit(clean, heights(page.locator("#trace path.clean").nth(panel)), 1)
        lines = page.locator(f"#trace path.{kind}.patch")
        assert lines.count() == 2
        for patch, line in enumerate(lines.all()):
            values = expected.isel(patch=patch).sel(component=own).values
            np.testing.assert_allclose(heights(line), start + slope * values, atol=0.3)
        widths = [width_of(each) for each in (lines.first, page.locator(f"#trace path.{kind}:not(.patch)"))]
        assert widths[0] < widths[1]
    for row in rows_of(saved(page, "Save the sublayers as CSV")):
        found = [float(row[f"patch {patch}"]) for patch in (0, 1)]
        np.testing.assert_allclose(found, expected.sel(component=row["component"]), atol=2e-3)


def width_of(line):
    return line.evaluate("line => parseFloat(getComputedStyle(line).strokeWidth)")


def heights(line):
    """Where a line's points stand, from above, in pixels."""
    return [float(each) for each in re.findall(r",(-?[\d.]+)", line.get_attribute("d"))]


@pytest.mark.slow
def test_patches_that_are_not_kept_are_said(opened, tmp_path, results, monkeypatch):
    monkeypatch.setattr("hydrascope.reports.html.traces.PATCH_BYTES", 3 * 2 * 2 * 2 * 9 * 2 * 8)
    page = opened(hs.report(results, tmp_path / "a.html", bootstrap=FEW).as_uri())
    said = "Single patches are kept for prompts 0–2 alone."
    for prompt, kept in ((2, True), (3, False), ("", None)):
        drawn(page, lambda prompt=prompt: page.locator("#prompt").select_option(str(prompt)))
        assert (page.locator("#trace path.patch").count() == 4) == bool(kept)
        assert (said in page.locator("#trace figcaption").text_content()) == (kept is False)


@pytest.mark.slow
def test_what_is_not_known_of_a_component_is_said(opened, tmp_path, results):
    """A head that was ablated and not read has no direct effect; a readout of nothing has no CE on DE to choose."""
    results = results.isel(component=results["component_kind"].values != "head")
    silent = results["readout"].values == "placebo.0"
    direct = results["direct"].where(~xr.DataArray(silent, dims="readout"), 0)
    page = opened(hs.report(results.assign(direct=direct), tmp_path / "a.html", bootstrap=FEW).as_uri())
    drawn(page, lambda: page.get_by_label("Points").select_option(label="CE on DE"))
    drawn(page, lambda: page.locator("#component").select_option(label="head.2.1"))
    assert page.locator("#scatter .point").count() == 0
    assert "Not known: the component wasn’t read" in page.locator("#scatter figcaption p").text_content()
    drawn(page, lambda: page.evaluate("location.hash = 'readout=placebo.0&points=CE on DE'"))
    assert page.locator("#scatter h3").text_content().startswith("Restored of what is removed by ablating")
    assert page.get_by_label("Points").input_value() == "0"
    assert page.locator("#scatter .point").count() == 40
