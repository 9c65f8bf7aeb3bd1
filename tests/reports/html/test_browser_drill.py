"""From prompt to prompt by keys, from a bar to its prompts, and a page of means alone."""

import csv
import io
import json
import re

import numpy as np
import pytest
from opened import FEW, decoded, saved
from report_page import drawn, numbers
from rest_slow import rest_slow

import hydrascope as hs
from hydrascope.explorer.notebook import MOST
from hydrascope.measures import Bootstrap
from hydrascope.reports.html import report_data
from hydrascope.reports.html.means_only import without_prompts
from hydrascope.reports.pages import page_html


def prompt(page) -> str:
    return page.evaluate("new URLSearchParams(location.hash.slice(1)).get('prompt')")


def test_keys_go_from_prompt_to_prompt(opened, file):
    page = opened(file)
    page.keyboard.press("n")  # nothing has the focus
    assert prompt(page) is None
    page.locator("#scatter .plot").focus()
    for key, expected in [("n", "0"), ("n", "1"), ("n", "2"), ("p", "1"), ("p", "0")]:
        drawn(page, lambda key=key: page.keyboard.press(key))
        assert prompt(page) == expected
    page.keyboard.press("p")  # there is none before it
    assert prompt(page) == "0"
    drawn(page, lambda: page.get_by_role("button", name="Next prompt").click())
    assert prompt(page) == "1"
    assert "prompt 1" in page.locator("#column-title").text_content()
    page.locator("#search").focus()
    page.keyboard.type("n")  # a letter that is typed
    assert prompt(page) == "1"
    page.locator("#search").fill("")
    drawn(page, lambda: page.get_by_role("button", name="Back to the mean").click())
    drawn(page, lambda: page.locator("#scatter .plot").focus() or page.keyboard.press("p"))
    assert prompt(page) == "39"


def test_keys_follow_the_order_of_the_table(opened, file, results):
    page = opened(f"{file}#component=attn.1")
    page.get_by_role("button", name="Restored").click()
    one = results.sel(ablated="attn.1").isel(readout=0).mean("patch")
    page.locator("#rows table").focus()
    order = np.argsort(-(one["total"] - one["direct"]).values, kind="stable")
    for place in range(3):
        drawn(page, lambda: page.keyboard.press("n"))
        assert prompt(page) == str(order[place])


def test_the_histogram_counts_every_prompt(opened, file, results):
    page = opened(f"{file}#component=mlp.1")
    rows = list(csv.DictReader(io.StringIO(saved(page, "Save the histogram as CSV").decode())))
    one = results.sel(ablated="mlp.1").isel(readout=0).mean("patch")
    restored = (one["total"] - one["direct"]).values
    assert sum(int(row["prompts"]) for row in rows) == len(restored)
    for i, row in enumerate(rows):
        low = float(row["restored from"] or -np.inf)
        high = float(row["to"] or np.inf)
        top = restored <= high if i == len(rows) - 1 else restored < high
        assert int(row["prompts"]) == ((restored >= low) & top).sum()
    assert max(int(row["prompts"]) for row in rows) < len(restored)


def test_a_bar_lists_its_prompts(opened, file):
    page = opened(f"{file}#component=mlp.1")
    page.locator("#histogram .plot").focus()
    page.keyboard.press("Home")
    told = page.locator("#live").text_content()
    page.keyboard.press("Enter")
    count = int(re.match(r"(\d+) prompts?: restored", told)[1])
    rows = page.locator("#rows tbody tr:not(.gap)")
    assert rows.count() == count
    assert page.locator("#found").text_content() == f"{count} of 40, {told.partition(': ')[2].removesuffix(' logits')}"
    low, high = ([-np.inf, *numbers(told)] if "below" in told else numbers(told))[-2:]
    for text in rows.locator("td:last-child").all_text_contents():
        assert low - 0.01 <= numbers(text)[0] <= high + 0.01
    page.get_by_role("button", name="All prompts again").click()
    assert rows.count() > count
    page.keyboard.press("Home") or page.locator("#histogram .plot").focus()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    drawn(page, lambda: page.locator("#component").select_option("0"))  # its amounts are others
    assert page.locator("#found").text_content() == ""


def test_the_command_is_copied(opened, file):
    page = opened(file)
    page.get_by_role("button", name="Copy").click()
    assert page.locator("#start").text_content().startswith("hydrascope explore ")
    page.wait_for_function("document.getElementById('copied').textContent !== ''")
    assert page.locator("form#typed").count() == 0


@pytest.mark.slow
def test_a_page_of_means_has_the_same_matrix(opened, tmp_path, results):
    page, chunks = hs.reports.page_data(results, FEW)
    small, kept = without_prompts(page, chunks, "Left out.")
    assert {name for name in chunks if name.endswith(".mean") or ".picture" in name} == set(kept)
    name = small["readouts"][0]["readings"][0]["pictures"][0]["array"]
    np.testing.assert_array_equal(decoded(small["arrays"], kept, name), decoded(page["arrays"], chunks, name))
    text = page_html(results, bootstrap=FEW, most=len(page_html(results, bootstrap=FEW)) - 1)
    (tmp_path / "a.html").write_text(text, encoding="utf-8")
    shown = opened((tmp_path / "a.html").as_uri())
    assert "mean over 40 prompts" in shown.locator("#matrix h2").text_content()
    assert "hs.view(results, full=True)" in shown.locator("#without").text_content()
    for hidden in ("#scatter", "#histogram", "#prompts", "#prompt"):
        assert shown.locator(hidden).is_hidden()
    shown.locator("#matrix .plot").focus()
    shown.keyboard.press("n")
    assert shown.locator("#trouble").is_hidden()
    assert shown.locator("#trace svg").count() == 1


@pytest.mark.slow
@pytest.mark.parametrize(("prompts", "readouts"), [(40, 2), (1200, 1), (1200, 4)])
def test_a_notebook_holds_half_a_megabyte_at_most(prompts, readouts):
    import synthetic

    names = {"logit": -1, **{f"placebo.{i}": -1 for i in range(readouts - 1)}}
    results = synthetic.results(15, prompts, 1, readouts=names)
    shown = hs.view(results)
    assert len(shown._repr_html_()) <= 500_000
    whole = page_html(results, bootstrap=Bootstrap())
    assert len(whole) > MOST or shown.document == whole


@pytest.mark.parametrize(
    ("model", "expected"),
    [("smollm2", "smollm2"), ("a/b-1.4b", "a/b-1.4b"), ("/home/x/y", "MODEL"), ("x;y", "MODEL"), ("-x", "MODEL")],
)
def test_the_command_is_one_that_a_shell_may_read(model, expected):
    assert report_data._argument({"model": model}) == expected


@pytest.mark.parametrize(
    ("share", "readouts"),
    [(0.3, 1), *rest_slow([(0.3, 2), *((share, readouts) for readouts in (1, 2) for share in (0.95, 1.01))], ())],
)
def test_a_page_names_what_it_leaves_out(results, readouts, share):
    """From the whole page down to what is surely too small for single prompts."""
    shown = results.isel(readout=slice(readouts))
    whole = page_html(shown, bootstrap=FEW)
    text = page_html(shown, bootstrap=FEW, most=int(share * len(whole)))
    page = json.loads(re.search(r'id="page">(.*?)</script>', text, re.DOTALL)[1])
    assert ("single prompts" in page["left_out"].lower()) == (not page["prompts"])
    assert ("readouts but the first" in page["left_out"].lower()) == (len(page["readouts"]) < readouts)
    assert (page["left_out"] == "") == (share > 1)
