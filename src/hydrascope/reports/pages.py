"""Pages of results: one file of a result, one that compares several, and their parts."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import xarray as xr

from hydrascope.components.experiments import result_kind
from hydrascope.measures import Bootstrap, Effects, outcome_bounds
from hydrascope.reports.flow.repair import RepairFlow
from hydrascope.reports.html.comparison_page import comparison_page
from hydrascope.reports.html.first_screen import OtherAblation, first_screen
from hydrascope.reports.html.means_only import left_out, without_prompts
from hydrascope.reports.html.render import one_file
from hydrascope.reports.html.report_data import Built, build_page, require_results
from hydrascope.reports.kinds import KINDS, with_kicks
from hydrascope.reports.summary.interval import Interval
from hydrascope.reports.summary.summarise import read_effects
from hydrascope.utils.errors import HydrascopeError


def page_data(results: xr.Dataset, bootstrap: Bootstrap) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the page's content as JSON values, and its compressed arrays by name.

        >>> page, chunks = hs.reports.page_data(results, hs.measures.Bootstrap(resamples=50))
        >>> page["depth"]
        6

    Args:
        results: a result of any kind.
        bootstrap: the resampling that gives the intervals.

    Raises:
        HydrascopeError: `results` is no result, or lacks a number or a dimension.
    """
    built = _built(results, bootstrap)
    return built.page, built.chunks


def page_parts(results: xr.Dataset, bootstrap: Bootstrap) -> tuple[dict[str, Any], dict[str, bytes], str]:
    """Return the content and arrays of a page, and its first screen as HTML.

    The first screen is empty if there is no finding to show.

    Raises:
        HydrascopeError: `results` is no result, or lacks a number or a dimension.
    """
    built = _built(results, bootstrap)
    return built.page, built.chunks, _first_screen(built, results, None, None, None, bootstrap)


def _built(results: xr.Dataset, bootstrap: Bootstrap) -> Built:
    require_results(results)
    return build_page(results, bootstrap, KINDS[result_kind(results.attrs)].views)


def report(
    results: xr.Dataset,
    out: str | Path,
    *,
    mediation: xr.Dataset | None = None,
    other: xr.Dataset | None = None,
    distance: xr.Dataset | None = None,
    bootstrap: Bootstrap | None = None,
    overwrite: bool = False,
) -> Path:
    """Write an HTML page that shows `results`: the verdicts, the responses, and every prompt.

    The page is one file that needs no network; docs/report.md describes it.

        >>> path = hs.report(results, "report.html")

    Args:
        results: the result of `sweep` or of an experiment. Data that was not kept has no view.
        out: the file to write.
        mediation: a mediation of the same prompts with the same options; the first screen then shows who is necessary.
        other: the same components under another ablation; the first screen names what changes.
        distance: from `hydrascope.analyses.distance`, with the same options; the first screen says how hard the
            ablation kicks the network.
        bootstrap: the resampling that gives the intervals; by default `Bootstrap()`.
        overwrite: whether to replace an existing file.

    Returns:
        The path of the page.

    Raises:
        HydrascopeError: `out` exists or cannot be written, or `results` is no result that a page can show.
    """
    path = _new(out, overwrite=overwrite)
    return _write(path, page_html(results, mediation=mediation, other=other, distance=distance, bootstrap=bootstrap))


def report_comparison(
    results: Mapping[str, xr.Dataset],
    out: str | Path,
    *,
    bootstrap: Bootstrap | None = None,
    overwrite: bool = False,
) -> Path:
    """Write an HTML page that compares results with the first.

    It shows a sentence and a ledger for each, the shares restored with their differences, and, of networks of one
    depth, the difference of every response. The page is one file without script that needs no network.

        >>> path = hs.reports.report_comparison({"first": results, "again": results}, "comparison.html")

    Args:
        results: two to six results, by name. Another ablation or readout is allowed, and said.
        out: the file to write.
        bootstrap: the resampling that gives the intervals; by default `Bootstrap()`.
        overwrite: whether to replace an existing file.

    Returns:
        The path of the page.

    Raises:
        HydrascopeError: `out` exists or cannot be written, there are too few or too many results, or one cannot be
            compared.
    """
    path = _new(out, overwrite=overwrite)
    return _write(path, comparison_page(results, bootstrap or Bootstrap()))


def _new(out: str | Path, *, overwrite: bool) -> Path:
    """Return a path to write to.

    Raises:
        HydrascopeError: it exists, and `overwrite` is false.
    """
    path = Path(out)
    if path.exists() and not overwrite:
        raise HydrascopeError(f"{path} exists: choose another path, or overwrite it")
    return path


def _write(path: Path, text: str) -> Path:
    try:
        path.write_text(text, encoding="utf-8", errors="replace", newline="\n")
    except OSError as error:
        raise HydrascopeError(f"cannot write {path} ({error.strerror or error}): choose another path") from error
    return path


def page_html(
    results: xr.Dataset,
    *,
    mediation: xr.Dataset | None = None,
    other: xr.Dataset | None = None,
    distance: xr.Dataset | None = None,
    bootstrap: Bootstrap | None = None,
    most: int | None = None,
) -> str:
    """Return the page that `report` writes, as text.

        >>> text = hs.reports.page_html(results, most=500_000)

    Args:
        results: as for `report`.
        mediation: as for `report`.
        other: as for `report`.
        distance: as for `report`.
        bootstrap: as for `report`.
        most: the number of characters above which single prompts are left out and, if that isn't enough, readouts but
            the first; the page says so. The means of a very large network may still take more.

    Raises:
        HydrascopeError: `results` is no result that a page can show.
    """
    bootstrap = bootstrap or Bootstrap()
    require_results(results)
    kept = [results]
    if most is not None and results["readout"].size > 1:
        # Readouts that can't fit aren't summarised: each takes as long as the first.
        kept = [*(kept if _least_size(results) <= most else []), results.isel(readout=[0])]
    text = ""
    for shown in kept:
        built = _built(shown, bootstrap)
        first = _first_screen(built, shown, mediation, other, distance, bootstrap)
        missing = [] if shown is results else ["readouts but the first"]
        text = one_file({**built.page, "left_out": left_out(missing)}, built.chunks, first)
        if most is None or len(text) <= most:
            return text
        text = one_file(*without_prompts(built.page, built.chunks, left_out(["single prompts", *missing])), first)
        if len(text) <= most:
            return text
    return text


def _least_size(results: xr.Dataset) -> int:
    """Return a number of bytes that a page of all prompts surely exceeds."""
    return 2 * results.sizes.get("readout", 1) * results.sizes.get("prompt", 1) * results.sizes.get("ablated", 1)


def _first_screen(
    built: Built,
    results: xr.Dataset,
    mediation: xr.Dataset | None,
    other: xr.Dataset | None,
    distance: xr.Dataset | None,
    bootstrap: Bootstrap,
) -> str:
    """Return the first screen as HTML; nothing if there is no finding to show."""
    from hydrascope.reports.flow.measured import flow_of
    from hydrascope.reports.flow.words import why_not

    found = [each for each in built.summary.verdicts if each.component]
    if not isinstance(built.effects, Effects) or not found:
        return ""
    if mediation is None and result_kind(results.attrs) == "mediation":
        mediation = results
    flow = flow_of(built.alone, built.effects, None, mediation, bootstrap, built.summary.verdicts)
    shown = any(flow.ablated in each.component.split(" or ") for each in found) and not why_not(flow)
    if not shown:
        return ""
    summary = with_kicks(built.summary, built.effects, distance)
    return first_screen(summary, flow, None if other is None else _other_ablation(other, flow, bootstrap))


def _other_ablation(results: xr.Dataset, flow: RepairFlow, bootstrap: Bootstrap) -> OtherAblation:
    """Return the outcome of the flow's component in another result.

    Raises:
        HydrascopeError: that result doesn't ablate it.
    """
    effects = read_effects(results, flow.source.readout)
    if flow.ablated not in effects["ablated"].values:
        raise HydrascopeError(f"the other result doesn't ablate {flow.ablated}: give one that does")
    level = replace(bootstrap, confidence=flow.confidence)
    found = outcome_bounds(effects.sel(ablated=[flow.ablated]), level).isel(ablated=0)
    amounts = (Interval.of(found[name]) for name in ("removed", "lost", "share"))
    return OtherAblation(str(results.attrs["ablation"]), results.sizes["prompt"], *amounts)
