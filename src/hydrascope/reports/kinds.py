"""The summary, the figures and the views of each kind of result, in one table."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from hydrascope.components.experiments import ResultKind, result_kind
from hydrascope.measures import Bootstrap, Effects, EffectsOnly, Sigma
from hydrascope.reports.html.heatmaps import Picture, interaction_picture, mediation_pictures
from hydrascope.reports.html.report_data import Views
from hydrascope.reports.summary.caveats import EFFECTS_ALONE
from hydrascope.reports.summary.distance_rows import distance_rows
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
    return with_kicks(summary, effects, distance)


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
    return with_kicks(summary, effects, distance)


def with_kicks(summary: Summary, effects: EffectsOnly, distance: xr.Dataset | None) -> Summary:
    """Add to a summary how hard each ablation kicks the network, if distances are given.

    Raises:
        HydrascopeError: only effects were kept, or the distances are of another run.
    """
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
