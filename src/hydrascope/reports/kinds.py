"""The summary, the figures and the page of each kind of result, in one table."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from hydrascope.components.experiments import ResultKind, result_kind
from hydrascope.measures import Bootstrap, Effects, EffectsOnly, Sigma, outcome_bounds
from hydrascope.reports.flow.repair import RepairFlow
from hydrascope.reports.html.comparison_page import comparison_page
from hydrascope.reports.html.first_screen import OtherAblation, first_screen
from hydrascope.reports.html.heatmaps import Picture, interaction_picture, mediation_pictures
from hydrascope.reports.html.means_only import left_out, without_prompts
from hydrascope.reports.html.render import one_file
from hydrascope.reports.html.report_data import Built, Views, build_page, require_results
from hydrascope.reports.summary.caveats import EFFECTS_ALONE
from hydrascope.reports.summary.distance_rows import distance_rows
from hydrascope.reports.summary.interval import Interval
from hydrascope.reports.summary.summarise import (
    Summary,
    read_effects,
    summarise_interactions,
    summarise_mediation,
    summarise_mediation_without_findings,
    summarise_split,
    summarise_split_without_findings,
    summarise_sweep,
    summarise_without_findings,
)
from hydrascope.utils.errors import HydrascopeError

if TYPE_CHECKING:
    from hydrascope.reports.figures.draw import Choice, Drawn


@dataclass(frozen=True)
class Kind:
    """The reports of one kind of result.

    Attributes:
        summarise: summarises results and their effects (`read_effects`).
        draw: writes every figure that the results have data for into a folder.
        views: the content of the page.
    """

    summarise: Callable[[xr.Dataset, EffectsOnly, Bootstrap], Summary]
    draw: Callable[[xr.Dataset, Path, "Choice"], "Drawn"]
    views: Views


def summarise(
    results: xr.Dataset,
    bootstrap: Bootstrap | None = None,
    readout: str | None = None,
    sigma: Sigma | None = None,
    distance: xr.Dataset | None = None,
) -> Summary:
    """Summarise results of any kind: verdicts and findings, with intervals over prompts.

        >>> summary = hs.reports.summarise(results)
        >>> [verdict.kind for verdict in summary.verdicts]
        ['attn', 'mlp']

    Args:
        results: a finished run.
        bootstrap: the resampling that gives the intervals; by default `Bootstrap()`.
        readout: the readout's label; by default the first.
        sigma: the reading of σ, as in `hydrascope.measures.per_prompt`.
        distance: from `hydrascope.analyses.distance`, with the same options: each verdict then says how hard the
            ablation kicks the network.

    Returns:
        The summary; `hydrascope.reports.render` prints it.

    Raises:
        HydrascopeError: `results` is no result, is unfinished, or lacks the readout; or the distances are of another
            run.
    """
    effects, bootstrap = read_effects(results, readout, sigma), bootstrap or Bootstrap()
    summary = KINDS[result_kind(results.attrs)].summarise(results, effects, bootstrap)
    return _with_kicks(summary, effects, distance)


def summarise_in_short(
    results: xr.Dataset,
    bootstrap: Bootstrap | None = None,
    readout: str | None = None,
    sigma: Sigma | None = None,
    distance: xr.Dataset | None = None,
) -> Summary:
    """Summarise as `summarise` does, without the paper's findings where there are verdicts.

    That takes two thirds of the time.

        >>> hs.reports.kinds.summarise_in_short(results).findings
        ()

    Raises:
        HydrascopeError: as `summarise`.
    """
    effects, bootstrap = read_effects(results, readout, sigma), bootstrap or Bootstrap()
    kind = KINDS[result_kind(results.attrs)]
    summary = kind.views.summarise(results, effects, bootstrap)
    if not summary.verdicts:
        summary = kind.summarise(results, effects, bootstrap)
    return _with_kicks(summary, effects, distance)


def _with_kicks(summary: Summary, effects: EffectsOnly, distance: xr.Dataset | None) -> Summary:
    if distance is None:
        return summary
    if not isinstance(effects, Effects):
        raise HydrascopeError(f"distances stand beside verdicts, and {EFFECTS_ALONE}")
    return replace(summary, kicks=distance_rows(distance, effects, summary.bootstrap))


def draw_all(
    results: xr.Dataset,
    folder: Path,
    prompt: int | None = None,
    ablated: str | None = None,
    readout: str | None = None,
    sigma: Sigma | None = None,
    mediation: xr.Dataset | None = None,
) -> "Drawn":
    """Draw every figure that `results` have data for, as PNG, PDF and SVG, and write captions.

    A sweep gives the repair flow, the responses, the paper's Figures 1, 2, 3, 7 and 8, and the heads. A mediation also
    gives the mediators. Interactions give the matrix of pairs alone. `captions.md` has a caption for each figure.

        >>> drawn = hs.reports.draw_all(results, Path("figures"))
        >>> len(drawn.paths)
        21

    Args:
        results: a finished run.
        folder: the folder to write to; it is made if it is missing.
        prompt: the index of the prompt that Figures 1 and 3 show; by default a typical one (`figures.examples`).
        ablated: the label of the ablation that Figures 1 and 3 show, by default a typical one, and that the repair flow
            shows, by default the summary's choice.
        readout: the readout's label; by default the first.
        sigma: the reading of σ, as in `hydrascope.measures.per_prompt`.
        mediation: the results of a mediation of the same prompts, with the same options. Its frozen runs show in the
            repair flow which components are necessary and sufficient.

    Returns:
        The files written, and the reasons why figures are missing.

    Raises:
        HydrascopeError: `results` is no result or is unfinished; it lacks the prompt, ablation or readout; it
            doesn't match the mediation; or the folder cannot be written.
    """
    from hydrascope.reports.figures.captions import write_captions
    from hydrascope.reports.figures.draw import Choice

    choice = Choice(prompt, ablated, readout, sigma, mediation)
    drawn = KINDS[result_kind(results.attrs)].draw(results, folder, choice)
    write_captions(folder, drawn.captions)
    return drawn


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
    summary = _with_kicks(built.summary, built.effects, distance)
    return first_screen(summary, flow, None if other is None else _other_ablation(other, flow, bootstrap))


def _other_ablation(results: xr.Dataset, flow: RepairFlow, bootstrap: Bootstrap) -> OtherAblation:
    """Return the outcome of the flow's component in another result.

    Raises:
        HydrascopeError: that result doesn't ablate it.
    """
    effects = read_effects(results, flow.source.readout)
    if flow.ablated not in effects["ablated"].values:
        raise HydrascopeError(f"the other result doesn't ablate {flow.ablated}: give one that does")
    found = outcome_bounds(effects.sel(ablated=[flow.ablated]), bootstrap).isel(ablated=0)
    amounts = (Interval.of(found[name]) for name in ("removed", "lost", "share"))
    return OtherAblation(str(results.attrs["ablation"]), results.sizes["prompt"], *amounts)


# Matplotlib is imported only when a figure is drawn: summaries and pages don't need it.


def _draw_sweep(results: xr.Dataset, folder: Path, choice: "Choice") -> "Drawn":
    from hydrascope.reports.figures.draw import draw_sweep

    return draw_sweep(results, folder, choice)


def _draw_mediation(results: xr.Dataset, folder: Path, choice: "Choice") -> "Drawn":
    from hydrascope.reports.figures.draw import draw_mediation

    return draw_mediation(results, folder, choice)


def _draw_split(results: xr.Dataset, folder: Path, choice: "Choice") -> "Drawn":
    from hydrascope.reports.figures.draw import draw_split

    return draw_split(results, folder, choice)


def _draw_interactions(results: xr.Dataset, folder: Path, choice: "Choice") -> "Drawn":
    from hydrascope.reports.figures.draw import draw_interactions

    return draw_interactions(results, folder, choice)


def _no_pictures(*_: object) -> Iterator[Picture]:
    yield from ()


def _mediation_matrices(
    results: xr.Dataset, effects: EffectsOnly, _: Summary, bootstrap: Bootstrap
) -> Iterator[Picture]:
    return mediation_pictures(results, effects, bootstrap)


def _pair_matrix(_: xr.Dataset, effects: EffectsOnly, summary: Summary, __: Bootstrap) -> Iterator[Picture]:
    """Yield the matrix of pairs, if there are pairs."""
    if summary.pairs:
        yield interaction_picture(summary.pairs, [str(name) for name in effects["ablated"].values], effects.readout)


#: The reports by kind.
KINDS: Mapping[ResultKind, Kind] = {
    "sweep": Kind(summarise_sweep, _draw_sweep, Views(summarise_without_findings, _no_pictures)),
    "mediation": Kind(
        summarise_mediation,
        _draw_mediation,
        Views(summarise_mediation_without_findings, _mediation_matrices, pictures_first=True),
    ),
    "interactions": Kind(
        summarise_interactions,
        _draw_interactions,
        Views(summarise_interactions, _pair_matrix, pictures_first=True),
    ),
    "split": Kind(summarise_split, _draw_split, Views(summarise_split_without_findings, _no_pictures)),
}
