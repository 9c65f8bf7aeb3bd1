"""The rows of an analysis of distances as a table."""

from collections.abc import Sequence

import numpy as np
from rich.console import Group
from rich.text import Text

from hydrascope.measures import Bootstrap
from hydrascope.reports.summary.distance_rows import DistanceRow
from hydrascope.reports.summary.interval import format_interval, number, percent
from hydrascope.reports.summary.table import numbers_table
from hydrascope.reports.summary.terminal import PRINTED


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
