"""The first screen: its bars and numbers are those of plain means, it is inert, and it reads at any width."""

import re
from dataclasses import replace

import numpy as np
import pytest
import synthetic
import xarray as xr
from opened import FEW, example
from report_page import numbers
from rest_slow import rest_slow

import hydrascope as hs
from hydrascope import measures
from hydrascope.reports.flow import repair_flow
from hydrascope.reports.html.first_screen import first_screen
from hydrascope.reports.html.ledger_bars import ledger_bars
from hydrascope.reports.kinds import summarise
from hydrascope.reports.pages import page_html
from hydrascope.reports.summary.interval import Interval, format_interval, format_share


@pytest.fixture(scope="module")
def flow(results):
    return repair_flow(results, bootstrap=FEW)


def test_both_bars_are_as_long_and_their_parts_are_the_means(results, flow):
    html = ledger_bars(flow)
    widths = {"upper": [], "lower": []}
    for y, width in re.findall(r'<rect class="part \w+" x="[\d.]+" y="(\d+)" width="([\d.]+)"', html):
        widths["lower" if int(y) else "upper"].append(float(width))
    assert sum(widths["upper"]) == pytest.approx(sum(widths["lower"]), abs=0.05) == pytest.approx(340, abs=0.05)
    effects = measures.per_prompt(results).sel(ablated=[flow.ablated])
    removed = -float(effects["direct"].mean())
    lost = -float(effects["total"].mean())
    moved = (
        (effects["unembed_ablated"] - effects["unembed"]).where(effects["downstream"], 0).isel(ablated=0).mean("prompt")
    )
    by_kind = moved.groupby("component_kind").sum()
    expected = {
        "attention": float(by_kind.sel(component_kind="attn")),
        "MLPs": float(by_kind.sel(component_kind="mlp")),
    }
    expected |= {"lost": lost, "final norm": removed - lost - sum(expected.values())}
    key = re.findall(r"</svg>([^<]+)</li>", html)
    found = {re.match(r"[a-zA-Z ]+(?= )", line)[0]: numbers(line)[0] for line in key}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=0.006)
    # The scale of the upper bar: what is removed, and what adds to it.
    whole = removed + sum(-value for value in expected.values() if value < 0)
    assert widths["upper"][0] == pytest.approx(340 * removed / whole, abs=0.05)


def test_its_sentence_and_answers_are_the_summarys(results, flow):
    summary = summarise(results, FEW)
    html = first_screen(summary, flow)
    verdict = next(each for each in summary.verdicts if each.component == flow.ablated)
    headline = re.search(r'id="first-title">(.*?)</h2>', html)[1]
    assert f"{100 * verdict.restored.estimate:.0f}%" in headline or "more than all" in headline
    for each in verdict.answers:
        assert f"{each.answer}, surely above 0 in {each.above} of {each.asked}" in html.replace("&#x27;", "'")


def test_its_numbers_are_all_of_the_component_that_it_names_at_one_level():
    """The verdict pools two components here, and the table of components has another level."""
    results = synthetic.results(4, 40, 2, seed=2, shares=np.zeros((8, 8)), readouts={"difference": -1, "placebo.0": -1})
    summary, flow = summarise(results, FEW), repair_flow(results, bootstrap=FEW)
    verdict = next(each for each in summary.verdicts if flow.ablated in each.component.split(" or "))
    assert verdict.pooled
    level = replace(FEW, confidence=verdict.confidence)
    assert level != FEW
    one = measures.per_prompt(results).sel(ablated=[flow.ablated])
    shares = measures.restoration(one, level).isel(ablated=0)
    fit = measures.compensation_regression(one, level).isel(ablated=0)
    of_one = Interval.of(shares["restored"])
    assert format_share(of_one) != format_share(verdict.restored)
    expected = {
        "Share of the mean": format_share(of_one),
        "Slope of what comes back on what is removed": format_interval(Interval.of(shares["restored_slope"]), 2),
        "Slope of CE on DE, the paper's claim": format_interval(Interval.of(fit["slope"]), 2),
    }
    html = first_screen(summary, flow)
    for name, value in expected.items():
        assert f"{name}: {value} at {flow.ablated}. " in html
    assert f"{format_share(of_one)} of what" in re.search(r'id="first-title">(.*?)</h2>', html)[1]
    assert f"({verdict.component}). What is shown is of {flow.ablated} on all prompts" in html
    assert f"</strong> {verdict.component}, pooled: {format_interval(verdict.restored_amount, 2)} logits" in html
    assert "surely write for the logit difference: " in html


def test_the_other_ablation_has_the_level_of_the_screen(results, flow):
    level = replace(FEW, confidence=flow.confidence)
    assert level != FEW
    lost = measures.mean_interval(-measures.per_prompt(results).sel(ablated=flow.ablated)["total"], level)
    html = page_html(results, other=results, bootstrap=FEW)
    assert f"and {format_interval(Interval.of(lost), 2)} lost, so that {format_share(flow.share)} comes back" in html


@pytest.mark.parametrize(
    ("restored", "low", "told"), [(0.5, 0.2, "Most of it"), (0.7, 0.2, "The largest part"), (0.5, -0.1, "")]
)
def test_it_names_the_largest_part_of_what_surely_comes_back(results, flow, restored, low, told):
    made_up = {"attention": Interval(0.3, 0.2, 0.4), "mlp": Interval(0.2, 0.1, 0.3), "norm": Interval(0.1, 0.0, 0.2)}
    changed = replace(flow, **made_up, restored=Interval(restored, 0.1, 1.0), share=Interval(0.5, low, 0.9))
    html = first_screen(summarise(results, FEW), changed)
    deck = re.search(r'<p class="deck">(.*?)No run', html)[1]
    assert deck == (f"{told} through later attention: 0.30 [0.20, 0.40] logits. " if told else "")


def made_distances(results):
    """Return distances of the same run, with numbers that tell themselves apart."""
    count, ablated = results.sizes["prompt"], results["ablated"].values
    rising = np.linspace(0.1, 0.9, count)[:, None, None] * np.ones((1, len(ablated), 6))
    control = np.linspace(-1, 1, count)[None, :, None] * np.ones((1, 1, len(ablated)))
    names = dict.fromkeys(("relative", "rank", "kick"), (("prompt", "ablated", "block"), rising))
    effects = {
        "control_direct": (("readout", "prompt", "ablated"), control),
        "control_total": (("readout", "prompt", "ablated"), control / 2),
    }
    coordinates = {"ablated": ablated, "block": np.arange(1, 7), "first_block": ("ablated", [1] * len(ablated))}
    coordinates["readout"] = results["readout"].values[:1]
    return xr.Dataset({**names, **effects}, coordinates, results.attrs)


def test_it_says_how_hard_the_ablation_kicks(results, flow, tmp_path):
    distance = made_distances(results)
    summary = summarise(results, FEW, distance=distance)
    verdict = next(each for each in summary.verdicts if flow.ablated in each.component.split(" or "))
    html = first_screen(summary, flow)
    for label in verdict.component.split(" or "):
        assert f"Kick of {label}: 0.50" in html
    assert "(intervals of this line: 95% each)" in html
    assert "after random directions of the same size 0.50" in html  # half of the control's direct effect comes back
    assert "Kick of" not in first_screen(summarise(results, FEW), flow)
    page = hs.report(results, tmp_path / "k.html", bootstrap=FEW, distance=distance).read_text()
    assert "Kick of" in page


def test_hostile_names_stay_texts(opened, tmp_path):
    results = example()
    results.attrs["model"] = "models/<img src=x onerror=alert(1)>"
    results.attrs["prompts"] = "</svg><script>alert(2)</script>.json"
    page = opened(hs.report(results, tmp_path / "a.html", bootstrap=FEW).as_uri())
    assert page.locator("#first").count() == 1
    assert page.locator("#first img, #first script").count() == 0


def test_its_doors_lead_down_the_page(opened, file):
    page = opened(f"{file}#component=attn.1")
    address = page.url
    for target in ("matrix", "scatter", "prompts"):
        page.locator(f"[data-door={target}]").click()
        box = page.locator(f"#{target}").bounding_box()
        assert -5 <= box["y"] < 900
        page.evaluate("scrollTo(0, 0)")
    assert page.url == address


@pytest.mark.parametrize("width", [390, 800, 1100, 1600])
@pytest.mark.parametrize("scheme", rest_slow(["light", "dark"], ("light",)))
def test_it_fits_and_one_picture_is_shown(opened, file, width, scheme):
    page = opened(file, color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shown = [page.locator(f".first-picture .{name}").is_visible() for name in ("wide", "narrow")]
    assert shown == [width > 560, width <= 560]


def test_a_term_is_defined_on_focus(opened, file):
    page = opened(file)
    term = page.locator("#first .term").first
    assert term.locator(".definition").is_hidden()
    term.focus()
    assert term.locator(".definition").is_visible()


def test_without_a_finding_there_is_no_first_screen(tmp_path):
    results = example()
    nothing = results.assign(direct=0 * results["direct"], total=0 * results["total"])
    page = hs.report(nothing, tmp_path / "a.html", bootstrap=FEW).read_text()
    assert 'id="first"' not in page
    one = hs.report(results.isel(prompt=slice(1)), tmp_path / "b.html", bootstrap=FEW).read_text()
    assert np.char.count(one, 'id="first"') == 0
