"""The page that compares results: its numbers, its words, and that it opens anywhere."""

import re
from collections.abc import Iterator, Mapping
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
import xarray as xr
from browsing import opening
from rest_slow import rest_slow
from typer.testing import CliRunner

import hydrascope as hs
from hydrascope.cli.app import app
from hydrascope.cli.results import short_names
from hydrascope.measures import Bootstrap
from hydrascope.reports.html.comparison_charts import MOST_RESULTS, difference_matrix
from hydrascope.reports.html.comparison_page import comparison_page
from hydrascope.utils.errors import HydrascopeError

FEW = Bootstrap(resamples=100)


def two(seed: int = 1, **options: Any) -> dict[str, xr.Dataset]:
    """Two results of one network, on the same prompts."""
    first, second = synthetic.results(4, 30, 2), synthetic.results(4, 30, 2, seed=seed, **options)
    return {"one": first, "two": second.assign_coords(text=first["text"])}


@pytest.fixture(scope="module")
def page() -> str:
    return comparison_page(two(), FEW)


def said(page: str) -> str:
    return unescape(re.sub(r"<[^>]+>", " ", page)).replace("−", "-")


def titles(page: str) -> list[str]:
    return [unescape(each).replace("−", "-") for each in re.findall(r"<title>(.*?)</title>", page)[1:]]


def test_each_cell_is_the_difference_of_plain_means(page: str) -> None:
    one, other = two().values()
    found = {}
    for each in titles(page):
        match = re.match(r"(\S+) ablated, (\S+): (\S+) \[(\S+), (\S+)\] logits", each)
        if match:
            found[match[1], match[2]] = [float(value) for value in match.groups()[2:]]
    moved = [(each["unembed_ablated"] - each["unembed"]).isel(readout=0).mean("prompt") for each in (one, other)]
    downstream = one["downstream"]
    assert len(found) == int(downstream.sum())
    for (ablated, component), (value, low, high) in found.items():
        before, after = (float(each.sel(ablated=ablated, component=component)) for each in moved)
        assert value == pytest.approx(after - before, abs=6e-4)
        assert low <= value <= high
    dots = page.split('class="cells')[1].split("</svg>")[0].count('class="sure"')
    assert dots == sum(low > 0 or high < 0 for _, low, high in found.values())
    assert f"{dots:,} of {len(found):,}" in said(page)


def test_the_profile_shows_each_share_by_plain_arithmetic(page: str) -> None:
    results = two()
    shown = 0
    for each in titles(page):
        match = re.match(r"(one|two), (\S+): (\S+) ", each)
        if match and " ablated, " not in each:
            result = results[match[1]].sel(ablated=match[2]).isel(readout=0)
            total, direct = (float(result[name].astype(float).mean()) for name in ("total", "direct"))
            assert float(match[3]) == pytest.approx(1 - total / direct, abs=6e-3)
            shown += 1
    over_depth = hs.reports.compare(results, FEW).over_depth
    assert shown == sum(each.sizes["ablated"] for each in over_depth.values()) > 2


def test_a_sentence_and_a_ledger_for_each_on_one_scale(page: str) -> None:
    comparison = hs.reports.compare(two(), FEW)
    for name in ("one", "two"):
        best = max((row.verdict for row in comparison.rows if row.name == name), key=lambda each: each.restored.low)
        assert re.search(
            rf"{name} +With {best.component} resampled from other prompts, {best.restored.estimate:.0%}", said(page)
        )
    bars = [
        sum(float(width) for width in re.findall(r'y="0" width="([\d.]+)"', svg))
        for svg in re.findall(r'<svg class="ledger".*?</svg>', page)
    ]
    removed = [float(each) for each in re.findall(r"([\d.]+) logits removed</text>", page)]
    assert max(bars) == pytest.approx(340, abs=0.1)
    widths = [float(each) for each in re.findall(r'class="part removed" x="0.00" y="0" width="([\d.]+)"', page)]
    assert widths[0] / widths[1] == pytest.approx(removed[0] / removed[1], rel=0.02)
    assert page.count('id="worse-stripes"') == 1


@pytest.mark.slow
def test_other_prompts_ablations_and_depths_are_said() -> None:
    results = two()
    results["two"] = results["two"].assign_coords(text=results["two"]["text"] + "!").assign_attrs(ablation="zero")
    text = said(comparison_page(results, FEW))
    assert "two has other prompts than one" in text
    assert "each result is resampled alone" in text
    assert "The ablations differ: one resample, two zero." in text
    deeper = said(comparison_page({"one": results["one"], "deep": synthetic.results(6, 30, 2)}, FEW))
    assert "There is no matrix: the networks have 4 and 6 blocks" in deeper
    some = results["two"].isel(ablated=slice(0, 4))
    assert "Components that only one result has are left out." in said(
        comparison_page({"one": results["one"], "some": some}, FEW)
    )
    probe = synthetic.results(4, 30, 2, readouts={"probe": -1}).assign_attrs(units="nats")
    text = said(comparison_page({"one": results["one"], "probe": probe}, FEW))
    assert "There is no matrix: the units differ (logits and nats)." in text
    assert "each pair of bars has its own scale" in text
    difference = synthetic.results(4, 30, 2, readouts={"difference": -1})
    text = said(comparison_page({"one": results["one"], "difference": difference}, FEW))
    assert "There is no matrix: the readouts differ (logit and difference)." in text


def test_what_cannot_be_compared_ends_in_a_line() -> None:
    one = two()["one"]
    with pytest.raises(HydrascopeError, match="at most 6 results"):
        comparison_page({str(number): one for number in range(MOST_RESULTS + 1)}, FEW)
    with pytest.raises(HydrascopeError, match="at least two results"):
        comparison_page({"one": one}, FEW)
    effects = synthetic.pairs(["attn.0", "mlp.0"], 8)
    with pytest.raises(HydrascopeError, match=r"^pairs: "):
        comparison_page({"one": one, "pairs": effects}, FEW)


def test_a_single_prompt_has_no_bounds_and_no_sure_difference() -> None:
    results = {name: each.isel(prompt=[0]) for name, each in two().items()}
    page = comparison_page(results, FEW)
    assert "No difference is sure." in page
    assert 'class="sure" cx="6"' in page  # the key alone
    assert page.count('class="sure"') == 1
    assert "nan" not in said(page).lower()


def test_what_is_not_there_is_not_spoken_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither texts of cells where there are too many, nor a scale of all bars where one result has some."""
    results = two()
    whole = comparison_page(results, FEW)
    assert "Point at a cell for its numbers." in whole
    assert "All bars have one scale." in whole
    monkeypatch.setattr("hydrascope.reports.html.comparison_charts._MOST_TEXTS", results["one"]["downstream"].size - 1)
    page = comparison_page({"one": results["one"], "two": results["two"].isel(prompt=[0])}, FEW)
    assert "Point at a cell" not in page
    assert not any(" ablated, " in title for title in titles(page))
    assert page.count('class="ledger"') == 1
    assert "scale" not in said(page).split("The shares side by side")[0]


def test_the_key_of_small_differences_ends_at_them() -> None:
    values = xr.DataArray(
        np.full((3, 1, 1), -0.0042),
        {"bound": ["estimate", "low", "high"], "ablated": ["attn.0"], "component": ["mlp.0"]},
        ("bound", "ablated", "component"),
    )
    matrix = said(difference_matrix(values, "logits", "a", "b"))
    assert "more, up to 0.0042 logits" in matrix
    assert "less, up to -0.0042 logits" in matrix


HOSTILE = "<img src=x onerror=alert(1)>\"'&{{page}}</style><script>alert(2)</script>"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    results = two(noise=1.0)
    results["two"].attrs |= {"model": HOSTILE, "prompts": HOSTILE, "ablation": HOSTILE, "units": "logits"}
    named: Mapping[str, xr.Dataset] = {"one": results["one"], HOSTILE: results["two"], "third": results["one"]}
    return hs.reports.report_comparison(named, tmp_path / "page.html", bootstrap=FEW)


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    with opening(browser, offline=True) as open_page:
        yield open_page


@pytest.mark.parametrize("scheme", rest_slow(["light", "dark"], ("dark",)))
def test_it_opens_without_a_network_and_hostile_text_is_inert(opened: Any, written: Path, scheme: str) -> None:
    page = opened(written.as_uri(), color_scheme=scheme)
    assert page.locator("script, img, [onerror]").count() == 0
    assert HOSTILE in page.locator("h1").text_content()
    assert page.locator(".ledger").count() == 3
    assert page.locator("[id]").evaluate_all("all => new Set(all.map(each => each.id)).size === all.length")
    for width in (390, 768, 1600):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core isn't installed").Axe()
    found = axe.run(page).response["violations"]
    assert [(each["id"], [node["html"][:120] for node in each["nodes"]]) for each in found] == []


def test_the_command_compares_and_refuses_what_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = {tmp_path / f"{name}.zarr": each for name, each in two().items()}
    monkeypatch.setattr("hydrascope.cli.report_commands.open_selected", lambda path: results[path])
    names = [str(name) for name in results]
    done = CliRunner().invoke(app, ["report", *names, "--out", str(tmp_path / "c.html")])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "c.html").read_text()
    assert "one and two" in page
    assert str(tmp_path) not in page
    refused = CliRunner().invoke(app, ["report", *names, "--out", str(tmp_path / "d.html"), "--other", names[0]])
    assert refused.exit_code != 0
    assert isinstance(refused.exception, HydrascopeError) or "belong to the page of one result" in refused.output


def test_results_of_one_name_are_numbered() -> None:
    assert short_names([Path("a/x.zarr"), Path("b/x.zarr"), Path("y.zarr")]) == ["a/x", "b/x", "y"]
    assert short_names([Path("a/x.zarr"), Path("b/x.zarr"), Path("c/x (1).zarr")]) == ["a/x", "b/x", "x (1)"]
    with pytest.raises(HydrascopeError, match="is given twice: give each result once"):
        short_names([Path("a.zarr"), Path("a.zarr")])


def test_what_is_gained_in_the_end_is_not_called_missing() -> None:
    results = two()
    both = ("attn.2", "mlp.2")
    results["two"]["total"].loc[{"ablated": list(both)}] = 0.4 * abs(results["two"]["direct"].sel(ablated=list(both)))
    text = said(comparison_page(results, FEW))
    assert "the answer gains" in text
