"""The views of stored results and of a typed prompt, and what is saved, in a browser."""

from functools import partial

import numpy as np
import pytest
from exploring import (
    PATCHES,
    POOL,
    answered,
    close,
    expected_effects,
    numbers,
    pick,
    serving,
    shown_effects,
    started,
    swept,
)
from opened import FEW, rows_of, saved

import hydrascope as hs
from hydrascope import measures
from hydrascope.explorer.session import Session


def test_the_views_are_of_the_typed_prompt(opened, session, address):
    page = started(opened, address)
    found = swept(session).isel(readout=0, prompt=-1)
    for row in rows_of(saved(page, "Save the matrix as CSV")):
        at = {"ablated": row["ablated"], "component": row["responding sublayer"]}
        change = found["unembed_ablated"].sel(at) - found["unembed"].sel(component=at["component"])
        expected = change if found["downstream"].sel(at) else np.nan
        np.testing.assert_allclose(float(row["mean"] or "nan"), expected, rtol=1e-5, atol=1e-6)
        assert row["low"] == row["high"] == ""
    assert page.locator("#prompts").is_hidden()
    assert "this prompt" in page.locator("#matrix h2").text_content()
    assert "One prompt" in page.locator("#verdict").text_content()


@pytest.mark.slow
def test_the_views_read_a_typed_prompt_as_is_chosen_and_show_every_patch(opened, session, address):
    page = started(opened, address)
    pick(page, "attn.0")
    found = swept(session).isel(readout=0, prompt=-1)
    shown = {}
    for name, written in (("clean", "unembed_ablated"), ("own", "unembed_ablated_own")):
        page.evaluate("name => (location.hash = location.hash.replace(/sigma=\\w+/, `sigma=${name}`))", name)
        page.wait_for_function("name => document.querySelector('#sigma').value === name", arg="01"[name == "own"])
        for row in rows_of(saved(page, "Save the matrix as CSV")):
            at = {"ablated": row["ablated"], "component": row["responding sublayer"]}
            change = found[written].sel(at) - found["unembed"].sel(component=at["component"])
            expected = change if found["downstream"].sel(at) else np.nan
            np.testing.assert_allclose(float(row["mean"] or "nan"), expected, rtol=1e-5, atol=1e-6)
            assert row["sigma"] == name
        part = page.locator("#component option:checked").text_content()
        assert page.locator("#trace path.patch").count() == 2 * PATCHES
        of = found.sel(ablated=part)
        patches = of["unembed_ablated_by_patch"] * (of["scale"] if name == "own" else 1)
        for row in rows_of(saved(page, "Save the sublayers as CSV")):
            each = [float(row[f"patch {patch}"]) for patch in range(PATCHES)]
            np.testing.assert_allclose(each, patches.sel(component=row["component"]), atol=2e-3)
        # What stands above is read alike.
        said = page.locator("button[data-component='mlp.2']").get_attribute("aria-label")
        np.testing.assert_allclose(
            numbers(said)[2], found[written].sel(ablated="attn.0", component="mlp.2"), atol=0.006
        )
        assert f"read {measures.SIGMA_NAME[name]}" in page.locator("#found-run").text_content()
        shown[name] = page.locator("#found-run .wide").last.locator("td").all_text_contents()
        sweep = measures.per_prompt(swept(session), sigma=name).isel(prompt=-1).sel(ablated="attn.0")
        np.testing.assert_allclose(numbers(shown[name][3])[0], sweep["norm"], atol=0.002)
    assert shown["clean"] != shown["own"]


@pytest.mark.slow
def test_a_stored_result_and_its_prompts(opened, session, folder, monkeypatch):
    monkeypatch.setattr("hydrascope.explorer.app.Bootstrap", lambda: FEW)
    results = swept(session, hs.Resample(PATCHES, seed=2, different_target=True), target="argmax")
    session = Session(session.model, list(results["text"].values))
    with serving(session, folder, results=results) as address:
        page = opened(f"{address}#component=attn.1&prompt=3")
        page.wait_for_selector("body[data-drawn]")
        assert page.locator("#story pre").text_content() == POOL[3]
        answered(page, lambda: page.get_by_role("button", name="Ask the model about it").click())
        assert page.locator("#patches").input_value() == str(PATCHES)
        pick(page, "attn.1")
        stored = results.isel(prompt=[3])
        close(shown_effects(page, "attn.1"), expected_effects(stored, "attn.1"))
        assert "prompt 3" in page.locator("#matrix h2").text_content()
        answered(page, lambda: page.locator("#views").select_option("prompt"))
        assert "this prompt" in page.locator("#matrix h2").text_content()
        answered(page, lambda: page.locator("#views").select_option(""))
        page.wait_for_function("() => document.querySelector('#matrix h2').textContent.includes('8 prompts')")


@pytest.mark.slow
def test_what_was_found_is_saved(opened, session, address, folder, monkeypatch):
    monkeypatch.setattr("hydrascope.explorer.session.report", partial(hs.report, bootstrap=FEW))
    page = started(opened, address)
    pick(page, "mlp.0")
    page.locator("#save-name").fill("my find")
    page.locator("#everyone").check()
    answered(page, lambda: page.get_by_role("button", name="Save result and report").click())
    assert "Saved 8 prompts" in page.locator("#doing").text_content()
    results = hs.open_results(folder / "my find.zarr")
    np.testing.assert_allclose(results["total"], swept(session, ablate="mlp.0")["total"], rtol=1e-6, atol=1e-8)
    report = opened((folder / "my find.html").as_uri())
    report.wait_for_selector("body[data-drawn]")
    assert "No model is behind this page" in report.locator("#command").text_content()
    assert report.locator("#start").text_content() == "hydrascope explore gpt2 --results RESULTS"
    assert report.locator("#ask").count() == 0
