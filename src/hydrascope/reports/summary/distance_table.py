"""The rows of an analysis of distances, with the control, as numbers and as a table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from rich.console import Group
from rich.text import Text

from hydrascope.measures import Bootstrap, restoration_by_kick
from hydrascope.measures.effects_type import Effects
from hydrascope.measures.restoration import restoration
from hydrascope.reports.summary.interval import Interval, format_interval, number, percent
from hydrascope.reports.summary.table import numbers_table
from hydrascope.reports.summary.terminal import PRINTED


@dataclass(frozen=True)
class DistanceRow:
    """The distance that one ablation pushes the residual stream, and what is restored.

    Distances are medians over prompts.

    Attributes:
        readout: the readout's label.
        ablated: the label of the ablation.
        relative: the distance relative to the prompt's own clean stream, after the ablated block.
        relative_later: the largest median of later blocks; NaN after the last block.
        rank: the share of clean runs that are as unusual, after the ablated block; 1 is typical.
        kick: half the mean squared change in units of the spread of clean runs, after the ablated block.
        restored_slope: the slope of total − direct on −direct over prompts.
        rise: that of the third of prompts with the largest kick minus that of the smallest.
        control_slope: the restored slope of random directions of the same size.
    """

    readout: str
    ablated: str
    relative: float
    relative_later: float
    rank: float
    kick: float
    restored_slope: Interval
    rise: Interval
    control_slope: Interval


def distance_rows(
    found: xr.Dataset, effects: Effects, control: Effects, bootstrap: Bootstrap | None = None
) -> tuple[DistanceRow, ...]:
    """Return a row for each ablation, the largest kick first.

    Args:
        found: the result of `hydrascope.analyses.distance`.
        effects: the effects of a sweep with the same ablation.
        control: those of a sweep with `hydrascope.ablations.SameSize` of that ablation.
        bootstrap: the resampling that gives the bounds.

    Raises:
        HydrascopeError: the effects are of other prompts or ablations.
    """
    bootstrap = bootstrap or Bootstrap()
    rises = restoration_by_kick(effects, found, bootstrap)["rise"]
    slopes, null = (restoration(each, bootstrap)["restored_slope"] for each in (effects, control))
    medians = found[["relative", "rank", "kick"]].median("prompt")
    rows = []
    for label in map(str, found["ablated"].values):
        first = int(found["first_block"].sel(ablated=label))
        at, later = (
            medians.sel(ablated=label, block=first),
            medians["relative"].sel(ablated=label, block=slice(first + 1, None)),
        )
        rows.append(
            DistanceRow(
                effects.readout,
                label,
                float(at["relative"]),
                float(later.max()) if later.size else float("nan"),
                float(at["rank"]),
                float(at["kick"]),
                Interval.of(slopes.sel(ablated=label)),
                Interval.of(rises.sel(ablated=label)),
                Interval.of(null.sel(ablated=label)),
            )
        )
    return tuple(sorted(rows, key=lambda row: -np.nan_to_num(row.kick)))


def distances_in_text(rows: Sequence[DistanceRow], prompts: int, bootstrap: Bootstrap | None = None) -> Group:
    """Return a table of the largest kicks for a terminal."""
    table = numbers_table(
        "How hard each ablation kicks the network",
        ("ablated",),
        ("kick", "rank", "relative", "later", "restored", "rise", "control"),
        (
            [
                row.ablated,
                *(_number(value) for value in (row.kick, row.rank, row.relative, row.relative_later)),
                *(format_interval(value, 2) for value in (row.restored_slope, row.rise, row.control_slope)),
            ]
            for row in rows[:PRINTED]
        ),
    )
    cut = f" {PRINTED} of {len(rows):,} are shown; all: --format csv." if len(rows) > PRINTED else ""
    notes = (
        f"Medians over {prompts:,} prompts, after the ablated block; later: the largest of all later blocks. Kick: 0 "
        "untouched, 1 as far apart as two prompts. Rank: 1 a typical distance, 0 unlike any clean run. Relative: the "
        "distance over that of the prompt's own clean stream; below 1 is not more natural. Restored: the slope of "
        "total − direct on −direct. Rise: that of the third of prompts with the largest kick minus that of the "
        "smallest. Control: restored after random directions of the same size. Intervals: bootstrap over prompts, "
        f"{percent((bootstrap or Bootstrap()).confidence)} each.{cut}"
    )
    return Group(table, Text(""), Text(notes, style="dim"))


def _number(value: float) -> str:
    return "–" if np.isnan(value) else number(value, 2)
