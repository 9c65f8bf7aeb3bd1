"""Pages of results that are no plain run: of interactions, and of effects alone."""

import time

import numpy as np
import pytest
import synthetic
from opened import FEW, rows_of, saved
from report_page import drawn, numbers

import hydrascope as hs
from hydrascope import measures
from hydrascope.reports.kinds import summarise
from hydrascope.reports.summary import sentences
from hydrascope.reports.summary.verdict_text import clearest_first


def test_interactions_say_who_covers_for_whom(opened, pairs):
    results, file = pairs
    page = opened(file)
    assert page.locator("#verdict p").all_text_contents() == sentences(clearest_first(summarise(results, FEW)))
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
    drawn(page, lambda: page.locator("#component").select_option(label="mlp.1"))
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
    drawn(page, lambda: page.locator("#component").select_option(label="attn.1"))
    at = results.sel(readout="placebo.0", ablated="attn.1")
    kept = rows_of(saved(page, "Save the table as CSV"))
    total = at["total"].astype(float).mean("patch")
    np.testing.assert_allclose([float(row["lost"]) for row in kept], -total, rtol=1e-5, atol=1e-6)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.slow
def test_all_pairs_of_heads_are_quick(opened, tmp_path):
    heads = synthetic.head_labels(12, 12)
    file = hs.report(synthetic.pairs(heads, 30), tmp_path / "a.html", bootstrap=FEW)
    assert file.stat().st_size < 1.5e6
    start = time.monotonic()
    page = opened(file.as_uri())
    drawn(page, lambda: page.locator("#component").select_option(label="head.7.3"))
    assert time.monotonic() - start < 5
    assert len(rows_of(saved(page, "Save the matrix as CSV"))) == 144 * 144
