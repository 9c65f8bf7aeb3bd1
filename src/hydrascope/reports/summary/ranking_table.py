"""The table of importances, for a terminal and as CSV."""

import csv
import io

import numpy as np
import xarray as xr
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hydrascope.measures.estimator_scores import DIFFERENCE
from hydrascope.reports.summary.interval import Interval, format_interval, number

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
    table = Table(title="Whom to credit", title_justify="left", padding=(0, 0), pad_edge=False)
    table.add_column("component", overflow="fold")
    for measure in map(str, ranked["measure"].values):
        table.add_column(_HEADINGS.get(measure, measure), justify="right")
    order = np.argsort(-estimate.sel(measure="lost").values, kind="stable")
    for index in order[:PRINTED]:
        values, places = estimate.isel(component=index).values, ranked["place"].isel(component=index).values
        cells = [_cell(*each) for each in zip(values, places, strict=True)]
        table.add_row(Text(str(ranked["component"].values[index])), *cells)
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
    table = Table(title="How estimates agree with what is lost", title_justify="left", padding=(0, 0), pad_edge=False)
    for heading in ("estimate", "Pearson", "Spearman", "Spearman, much − little repaired", "seconds"):
        table.add_column(heading, justify="left" if heading == "estimate" else "right", overflow="fold")
    for name in map(str, scored["estimator"].values):
        one = scored.sel(estimator=name)
        columns = [("pearson", "all"), ("spearman", "all"), ("spearman", DIFFERENCE)]
        cells = [format_interval(Interval.of(one[score].sel(prompts=prompts)), 2) for score, prompts in columns]
        table.add_row(_HEADINGS.get(name, name), *cells, number(float(one["seconds"]), 1))
    return table


def importances_as_csv(ranked: xr.Dataset) -> str:
    """Return a row for each component as CSV.

    Each importance has the columns `NAME`, `NAME_low`, `NAME_high`, and `NAME_place` for its rank.
    """
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    measures = list(map(str, ranked["measure"].values))
    rows.writerow(["component", *(name + end for name in measures for end in ("", "_low", "_high", "_place"))])
    for index, component in enumerate(map(str, ranked["component"].values)):
        cells: list[float | str] = []
        for name in measures:
            one = ranked.isel(component=index).sel(measure=name)
            values = [*(float(one["importance"].sel(bound=bound)) for bound in ("estimate", "low", "high"))]
            cells += [value if np.isfinite(value) else "" for value in (*values, float(one["place"]))]
        rows.writerow([component, *cells])
    return file.getvalue()
