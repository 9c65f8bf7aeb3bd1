"""By which ways effects go, as numbers with confidence intervals, and in a table: of path patching."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from rich.console import Group
from rich.text import Text

from hydrascope.measures import Bootstrap, select_readout, simultaneous
from hydrascope.reports.summary.interval import Interval, format_significant, percent
from hydrascope.reports.summary.terminal import PRINTED, numbers_table


@dataclass(frozen=True)
class PathPatchingRow:
    """What of a part's effect goes by way of another, means over prompts in the readout's unit.

    Both have bounds that hold for all ways of the readout at once.

    Attributes:
        readout: of which one.
        sender: what is ablated.
        receiver: what then writes what it would; `logits` for the direct path.
        frozen: what that does on the one path from sender to receiver to the readout, everything else held at clean.
        free: the same with everything downstream of the receiver free.
    """

    readout: str
    sender: str
    receiver: str
    frozen: Interval
    free: Interval


def path_rows(
    found: xr.Dataset, readout: str | None = None, bootstrap: Bootstrap | None = None
) -> tuple[PathPatchingRow, ...]:
    """Of each sender and each receiver that is downstream of it; those by which most goes, if all else is free, first.

    Args:
        found: of `hydrascope.analyses.path_patching`.
        readout: by default the first.

    Raises:
        HydrascopeError: there is no such readout.
    """
    found = select_readout(found, readout)
    senders, receivers = np.nonzero(found["downstream"].values)
    names = ("frozen", "free")
    samples = {name: (("prompt", "way"), found[name].values[:, senders, receivers]) for name in names}
    bounds = simultaneous(lambda means: means, xr.Dataset(samples), bootstrap or Bootstrap(), "way")
    columns = [bounds[name].transpose("way", "bound").values for name in names]
    rows = [
        PathPatchingRow(
            str(found["readout"].values),
            str(found["sender"].values[sender]),
            str(found["receiver"].values[receiver]),
            *(Interval(*map(float, column[number])) for column in columns),
        )
        for number, (sender, receiver) in enumerate(zip(senders, receivers, strict=True))
    ]
    return tuple(sorted(rows, key=lambda row: -abs(row.free.estimate)))


def paths_in_text(found: xr.Dataset, rows: Sequence[PathPatchingRow], bootstrap: Bootstrap | None = None) -> Group:
    """The ways of one readout by which most goes, for a terminal."""
    table = numbers_table("By which way", ("from", "to"), ("all else frozen", "all else free"))
    for row in rows[:PRINTED]:
        table.add_row(row.sender, row.receiver, format_significant(row.frozen), format_significant(row.free))
    bootstrap = bootstrap or Bootstrap()
    cut = f" {PRINTED} of {len(rows):,} are shown; all: --format csv." if len(rows) > PRINTED else ""
    notes = (
        f"In {found.attrs.get('units', 'logits')} of {rows[0].readout}, means over {found.sizes['prompt']:,} prompts: "
        "what changes if `to` writes what it would were `from` ablated, and `from` itself is clean; to logits, what is "
        "written to them directly. Held: all others as in the clean run. Free: what is downstream of `to` answers. "
        f"Intervals: bootstrap over prompts, {percent(bootstrap.confidence)} for all ways at once.{cut}"
        if rows
        else "Nothing that is asked for is downstream of anything else."
    )
    return Group(table, Text(""), Text(notes, style="dim"))
