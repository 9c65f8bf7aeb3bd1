"""The rows of path patching, as numbers with confidence intervals and as a table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from rich.console import Group
from rich.text import Text

from hydrascope.measures import Bootstrap, select_readout, simultaneous
from hydrascope.reports.summary.interval import Interval, format_significant, percent
from hydrascope.reports.summary.table import numbers_table
from hydrascope.reports.summary.terminal import PRINTED


@dataclass(frozen=True)
class PathPatchingRow:
    """The effect of one component through another, means over prompts in the readout's unit.

    `frozen` and `free` have bounds that hold for all paths of the readout at once.

    Attributes:
        readout: the readout's label.
        sender: the label of the ablated component.
        receiver: the label of the component that reacts to the sender; `logits` for the direct path.
        frozen: the effect along the path from sender to receiver to readout, everything else frozen.
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
    """Return the paths of one readout, the largest |`free`| first.

    Receivers that aren't downstream of a sender are left out.

    Args:
        found: the result of `hydrascope.analyses.path_patching`.
        readout: the readout's label; by default the first.
        bootstrap: the resampling that gives the bounds.

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
    """Return a table of the largest paths of one readout for a terminal."""
    table = numbers_table(
        "By which way",
        ("from", "to"),
        ("all else frozen", "all else free"),
        ([row.sender, row.receiver, *map(format_significant, (row.frozen, row.free))] for row in rows[:PRINTED]),
    )
    bootstrap = bootstrap or Bootstrap()
    cut = f" {PRINTED} of {len(rows):,} are shown; all: --format csv." if len(rows) > PRINTED else ""
    notes = (
        f"In {found.attrs.get('units', 'logits')} of {rows[0].readout}, means over {found.sizes['prompt']:,} prompts: "
        "what changes if `to` writes what it would were `from` ablated, and `from` itself is clean; to logits, what is "
        "written to them directly. Frozen: all others as in the clean run. Free: what is downstream of `to` answers. "
        f"Intervals: bootstrap over prompts, {percent(bootstrap.confidence)} for all ways at once.{cut}"
        if rows
        else "Nothing that is asked for is downstream of anything else."
    )
    return Group(table, Text(""), Text(notes, style="dim"))
