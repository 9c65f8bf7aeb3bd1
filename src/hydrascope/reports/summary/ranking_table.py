"""The table of importances, for a terminal, as CSV and as rows."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hydrascope.measures.estimator_scores import DIFFERENCE
from hydrascope.reports.summary.interval import Interval, format_interval, number
from hydrascope.reports.summary.table import numbers_table

#: The number of components printed: those that lose most.
PRINTED = 25

_HEADINGS = {"unembed": "DE", "integrated_gradients": "IG", "atp_star": "AtP*", "atp": "AtP", "gim": "GIM"}


@dataclass(frozen=True)
class RankedRow:
    """The importance of one component by every measure.

    Attributes:
        component: the component's label.
        importance: means over prompts, above 0 where the readout needs the component.
        place: the component's place by its size, 1 for the largest; NaN where a measure has no value.
    """

    component: str
    importance: dict[str, Interval]
    place: dict[str, float]


@dataclass(frozen=True)
class EstimatorRow:
    """The agreement of one estimator with what is lost, over components.

    Attributes:
        estimator: the estimator's name.
        pearson: the correlation of means over prompts.
        spearman: the rank correlation of means over prompts.
        spearman_difference: that where much is repaired minus that where little is.
        seconds: the time that it took.
    """

    estimator: str
    pearson: Interval
    spearman: Interval
    spearman_difference: Interval
    seconds: float


def importances(ranked: xr.Dataset, scored: xr.Dataset | None) -> Group:
    """Return a table of the components that lose most, and a table of the estimators' agreement.

    Args:
        ranked: the result of `hydrascope.measures.rank`.
        scored: the result of `hydrascope.measures.estimator_scores`; None leaves the second table out.
    """
    estimate = ranked["importance"].sel(bound="estimate")
    order = np.argsort(-estimate.sel(measure="lost").values, kind="stable")
    rows = (
        [
            str(ranked["component"].values[index]),
            *map(_cell, estimate.isel(component=index).values, ranked["place"].isel(component=index).values),
        ]
        for index in order[:PRINTED]
    )
    headings = [_HEADINGS.get(measure, measure) for measure in map(str, ranked["measure"].values)]
    table = numbers_table("Whom to credit", ["component"], headings, rows)
    left_out = len(order) - PRINTED
    cut = f" The {PRINTED} that lose most are shown; {left_out:,} are left out: --format csv." if left_out > 0 else ""
    notes = (
        f"In {ranked.attrs.get('units', 'logits')}, means over prompts, above 0 where {ranked.attrs['readout']} needs "
        "the component; # its place. DE: Δ unembed. removed: −direct. lost: −total. shapley: what is lost without it, "
        "averaged over who else is gone. Others: minus what gradients say of total; GIM's size is its own." + cut
    )
    blocks: list[RenderableType] = [table]
    if scored is not None:
        blocks += [Text(""), _agreement(scored)]
    return Group(*blocks, Text(""), Text(notes, style="dim"))


def _cell(value: float, place: float) -> str:
    return f"{number(value, 2)} #{place:.0f}" if np.isfinite(place) else "–"


def _agreement(scored: xr.Dataset) -> Table:
    def cells(row: EstimatorRow) -> list[str]:
        scores = (row.pearson, row.spearman, row.spearman_difference)
        name = _HEADINGS.get(row.estimator, row.estimator)
        return [name, *(format_interval(score, 2) for score in scores), number(row.seconds, 1)]

    return numbers_table(
        "How estimates agree with what is lost",
        ["estimate"],
        ["Pearson", "Spearman", "Spearman, much − little repaired", "seconds"],
        map(cells, estimator_rows(scored)),
    )


def estimator_rows(scored: xr.Dataset) -> tuple[EstimatorRow, ...]:
    """Return a row for each estimator.

    Args:
        scored: the result of `hydrascope.measures.scores`.
    """

    def row(name: str) -> EstimatorRow:
        one = scored.sel(estimator=name)
        return EstimatorRow(
            estimator=name,
            pearson=Interval.of(one["pearson"].sel(prompts="all")),
            spearman=Interval.of(one["spearman"].sel(prompts="all")),
            spearman_difference=Interval.of(one["spearman"].sel(prompts=DIFFERENCE)),
            seconds=float(one["seconds"]),
        )

    return tuple(map(row, map(str, scored["estimator"].values)))


def ranked_rows(ranked: xr.Dataset) -> tuple[RankedRow, ...]:
    """Return a row for each component, in their order.

    Args:
        ranked: the result of `hydrascope.measures.rank`.
    """

    def row(index: int, component: str) -> RankedRow:
        one = {str(name): ranked.sel(measure=name).isel(component=index) for name in ranked["measure"].values}
        importance = {name: Interval.of(each["importance"]) for name, each in one.items()}
        return RankedRow(component, importance, {name: float(each["place"]) for name, each in one.items()})

    return tuple(row(index, component) for index, component in enumerate(map(str, ranked["component"].values)))


def importance_rows(ranked: xr.Dataset) -> list[dict[str, str | float | Interval]]:
    """Return a flat row for each component: its importance by each measure, and its place."""
    return [
        {"component": row.component} | {key: value for name in row.importance for key, value in _columns(row, name)}
        for row in ranked_rows(ranked)
    ]


def _columns(row: RankedRow, name: str) -> list[tuple[str, float | Interval]]:
    return [(name, row.importance[name]), (f"{name}_place", row.place[name])]
