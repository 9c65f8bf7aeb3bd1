"""What is reported of each kind of result: its summary, its figures and its page, in one table."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from hydrascope.components.experiments import ResultKind, result_kind
from hydrascope.measures import Bootstrap, EffectsOnly, Sigma
from hydrascope.reports.html.heatmaps import Picture, interaction_picture, mediation_pictures
from hydrascope.reports.html.render import one_file
from hydrascope.reports.html.report_data import Views, build_page, require_results
from hydrascope.reports.summary.summarise import (
    Summary,
    read_effects,
    summarise_interactions,
    summarise_mediation,
    summarise_sweep,
)
from hydrascope.utils.errors import HydrascopeError

if TYPE_CHECKING:
    from hydrascope.reports.figures.draw import Choice, Drawn


@dataclass(frozen=True)
class Kind:
    """What is reported of results of one kind.

    Attributes:
        summarise: what was found, from the results and their effects, as `read_effects` gives them.
        draw: writes all figures that there is data for into a folder.
        views: what a page says and shows.
    """

    summarise: Callable[[xr.Dataset, EffectsOnly, Bootstrap], Summary]
    draw: Callable[[xr.Dataset, Path, "Choice"], "Drawn"]
    views: Views


def summarise(
    results: xr.Dataset, bootstrap: Bootstrap | None = None, readout: str | None = None, sigma: Sigma | None = None
) -> Summary:
    """Summarise results of any kind: the verdict, and every finding, with intervals over prompts.

        summarise(hydrascope.open_results("results.zarr")).verdicts[0].answer

    Args:
        bootstrap: how intervals are drawn.
        readout, sigma: as in `hydrascope.measures.per_prompt`.

    Raises:
        HydrascopeError: this is no result, or an unfinished one, or has no such readout.
    """
    effects = read_effects(results, readout, sigma)
    return KINDS[result_kind(results.attrs)].summarise(results, effects, bootstrap or Bootstrap())


def draw_all(
    results: xr.Dataset,
    folder: Path,
    prompt: int | None = None,
    ablated: str | None = None,
    readout: str | None = None,
    sigma: Sigma | None = None,
) -> "Drawn":
    """Draw what the run has the data for into `folder`: who responds, Figures 1, 2, 3, 7 and 8 of the paper, the heads.

    Of mediation who repairs, too; of interactions who covers for whom, and nothing else.

    Args:
        prompt, ablated: the prompt, by its index, and the ablation that Figures 1 and 3 show; by default `examples`.
        readout, sigma: as in `hydrascope.measures.per_prompt`.

    Raises:
        HydrascopeError: this is no result, or an unfinished one; there is no such prompt, part or readout; the folder
            cannot be written.
    """
    from hydrascope.reports.figures.draw import Choice

    return KINDS[result_kind(results.attrs)].draw(results, folder, Choice(prompt, ablated, readout, sigma))


def page_data(results: xr.Dataset, bootstrap: Bootstrap) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return what a page says of `results`, as JSON, and the arrays that it draws, compressed, by name.

    Raises:
        HydrascopeError: the results are no result at all, or lack a number or a dimension.
    """
    require_results(results)
    return build_page(results, bootstrap, KINDS[result_kind(results.attrs)].views)


def report(
    results: xr.Dataset, out: str | Path, *, bootstrap: Bootstrap | None = None, overwrite: bool = False
) -> Path:
    """Write a page that shows `results`: the verdict, who responds to what, and every prompt.

        >>> hs.report(hs.open_results("gpt2.zarr"), "report.html")               # doctest: +SKIP

    Every number on it is computed here; the page shows them. What it holds, and how to share it: docs/report.md.

    Args:
        results: of `run` or `sweep`, of experiments, too. Of what was not kept there are no views.
        out: the file to write.
        bootstrap: how intervals are drawn.
        overwrite: replace the file if it is there.

    Returns:
        `out`.

    Raises:
        HydrascopeError: there is such a file, or it can't be written; the results are none that a page can show.
    """
    path = Path(out)
    if path.exists() and not overwrite:
        raise HydrascopeError(f"{path} exists: choose another place, or overwrite it")
    text = one_file(*page_data(results, bootstrap or Bootstrap()))
    try:
        path.write_text(text, encoding="utf-8", errors="replace", newline="\n")
    except OSError as error:
        raise HydrascopeError(f"cannot write {path} ({error.strerror or error}): choose another place") from error
    return path


# Matplotlib, which summaries and pages don't need, is imported only once something is drawn.


def _draw_sweep(results: xr.Dataset, folder: Path, choice: "Choice") -> "Drawn":
    from hydrascope.reports.figures.draw import draw_sweep

    return draw_sweep(results, folder, choice)


def _draw_mediation(results: xr.Dataset, folder: Path, choice: "Choice") -> "Drawn":
    from hydrascope.reports.figures.draw import draw_mediation

    return draw_mediation(results, folder, choice)


def _draw_interactions(results: xr.Dataset, folder: Path, choice: "Choice") -> "Drawn":
    from hydrascope.reports.figures.draw import draw_interactions

    return draw_interactions(results, folder, choice)


def _no_pictures(*_: object) -> Iterator[Picture]:
    yield from ()


def _of_mediation(results: xr.Dataset, effects: EffectsOnly, _: Summary, bootstrap: Bootstrap) -> Iterator[Picture]:
    return mediation_pictures(results, effects, bootstrap)


def _of_pairs(_: xr.Dataset, effects: EffectsOnly, found: Summary, __: Bootstrap) -> Iterator[Picture]:
    """The matrix of pairs, where there are any."""
    if found.pairs:
        yield interaction_picture(found.pairs, [str(name) for name in effects["ablated"].values], effects.readout)


#: What is reported of each kind. A mediation's page shows what each reaction is worth as matrices, not in words.
KINDS: Mapping[ResultKind, Kind] = {
    "sweep": Kind(summarise_sweep, _draw_sweep, Views(summarise_sweep, _no_pictures)),
    "mediation": Kind(summarise_mediation, _draw_mediation, Views(summarise_sweep, _of_mediation)),
    "interactions": Kind(
        summarise_interactions,
        _draw_interactions,
        Views(summarise_interactions, _of_pairs, pictures_first=True),
    ),
}
