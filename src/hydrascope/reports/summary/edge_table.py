"""The rows of an analysis of edges, as numbers with confidence intervals and as a table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from rich.console import Group
from rich.text import Text

from hydrascope.measures import Bootstrap, edge_scores, interval, select_readout, simultaneous
from hydrascope.measures.edge_scores import ESTIMATES
from hydrascope.reports.summary.interval import Interval, format_interval, format_significant, number, percent
from hydrascope.reports.summary.table import numbers_table
from hydrascope.reports.summary.terminal import PRINTED


@dataclass(frozen=True)
class EdgeRow:
    """The effect of one edge, means over prompts in the readout's unit.

    Attributes:
        readout: the readout's label.
        source: the label of the component that changes; `embed` for the embeddings.
        reader: the label of the component that reads the change.
        effect: the exact effect, with bounds that hold for all edges of the readout at once.
        eap: its linear estimate at the clean pass; NaN where there is none.
        eap_ig: its estimate with gradients integrated over the inputs; NaN where there is none.
    """

    readout: str
    source: str
    reader: str
    effect: Interval
    eap: float
    eap_ig: float


def edge_rows(found: xr.Dataset, readout: str | None = None, bootstrap: Bootstrap | None = None) -> tuple[EdgeRow, ...]:
    """Return the edges of one readout, the largest |effect| first.

    Args:
        found: the result of `hydrascope.analyses.edges`.
        readout: the readout's label; by default the first.
        bootstrap: the resampling that gives the bounds.

    Raises:
        HydrascopeError: there is no such readout.
    """
    chosen = select_readout(found, readout)
    sources, readers = np.nonzero(found["exists"].values)
    samples = xr.Dataset({"edge": (("prompt", "way"), chosen["edge"].values[:, sources, readers])})
    bounds = simultaneous(lambda means: means, samples, bootstrap or Bootstrap(), "way")["edge"]
    columns = bounds.transpose("way", "bound").values
    estimates = {
        name: chosen[name].mean("prompt").values[sources, readers] if name in chosen else np.full(len(sources), np.nan)
        for name in ESTIMATES
    }
    rows = [
        EdgeRow(
            str(chosen["readout"].values),
            str(found["source"].values[source]),
            str(found["reader"].values[reader]),
            Interval(*map(float, columns[place])),
            float(estimates["eap"][place]),
            float(estimates["eap_ig"][place]),
        )
        for place, (source, reader) in enumerate(zip(sources, readers, strict=True))
    ]
    return tuple(sorted(rows, key=lambda row: -abs(row.effect.estimate)))


def edges_in_text(found: xr.Dataset, rows: Sequence[EdgeRow], bootstrap: Bootstrap | None = None) -> Group:
    """Return a table of the largest edges of one readout for a terminal, and the scores."""
    bootstrap, readout = bootstrap or Bootstrap(), rows[0].readout
    names = [name for name in ESTIMATES if name in found]
    table = numbers_table(
        "Edges",
        ("source", "reader"),
        ("effect", *(ESTIMATES[name] for name in names)),
        (
            [row.source, row.reader, format_significant(row.effect), *(number(getattr(row, name), 3) for name in names)]
            for row in rows[:PRINTED]
        ),
    )
    parts: list[object] = [table, Text("")]
    if names:
        scores = edge_scores(found, readout, bootstrap)
        columns = ("pearson", "spearman", "top")
        parts += [
            numbers_table(
                "Estimates against exact effects, over all edges",
                ("estimate",),
                ("Pearson", "Spearman", "of the ten largest", "Spearman on each prompt, mean"),
                (
                    [
                        ESTIMATES[name],
                        *(number(float(scores[column].sel(estimator=name)), 2) for column in columns),
                        format_interval(Interval.of(scores["spearman_by_prompt"].sel(estimator=name)), 2),
                    ]
                    for name in names
                ),
            ),
            Text(""),
        ]
    remainder = ""
    if "edge_remainder" in found:
        chosen = select_readout(found, readout)
        samples = chosen[["edge_remainder", "total"]].reset_coords(drop=True).map(abs).mean("source")
        share = interval(lambda means: means, samples, bootstrap)
        left = float(share["edge_remainder"].sel(bound="estimate")) / float(share["total"].sel(bound="estimate"))
        remainder = f" The edges out of a source miss its total effect by {left:.0%} of the mean |total|."
    cut = f" {PRINTED} of {len(rows):,} are shown; all: --format csv." if len(rows) > PRINTED else ""
    notes = (
        f"In {found.attrs.get('units', 'logits')} of {readout}, means over {found.sizes['prompt']:,} prompts: the "
        "change where the reader alone reads what ablating the source changes, all downstream of it free. Intervals: "
        f"bootstrap over prompts, {percent(bootstrap.confidence)} for all edges at once.{remainder}{cut}"
    )
    return Group(*parts, Text(notes, style="dim"))  # type: ignore[arg-type]
