"""The table of importances, for a terminal and as CSV."""

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
    columns = [("pearson", "all"), ("spearman", "all"), ("spearman", DIFFERENCE)]

    def cells(name: str) -> list[str]:
        one = scored.sel(estimator=name)
        scores = [format_interval(Interval.of(one[score].sel(prompts=prompts)), 2) for score, prompts in columns]
        return [_HEADINGS.get(name, name), *scores, number(float(one["seconds"]), 1)]

    return numbers_table(
        "How estimates agree with what is lost",
        ["estimate"],
        ["Pearson", "Spearman", "Spearman, much − little repaired", "seconds"],
        map(cells, map(str, scored["estimator"].values)),
    )


def importance_rows(ranked: xr.Dataset) -> list[dict[str, str | float | Interval]]:
    """Return a row for each component: its importance by each measure, and its place."""
    names = list(map(str, ranked["measure"].values))
    rows: list[dict[str, str | float | Interval]] = []
    for index, component in enumerate(map(str, ranked["component"].values)):
        one = ranked.isel(component=index)
        row: dict[str, str | float | Interval] = {"component": component}
        for position, name in enumerate(names):
            row[name] = Interval.of(one["importance"].isel(measure=position))
            row[f"{name}_place"] = float(one["place"].values[position])
        rows.append(row)
    return rows
