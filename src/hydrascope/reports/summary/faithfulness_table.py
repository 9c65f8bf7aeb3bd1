"""The faithfulness of circuits, as numbers with confidence intervals and as a table."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from rich.console import Group
from rich.text import Text

from hydrascope.components.component import Component
from hydrascope.measures import Bootstrap, mean_interval, select_readout
from hydrascope.reports.summary.interval import Interval, format_interval, percent
from hydrascope.reports.summary.table import numbers_table
from hydrascope.reports.summary.terminal import PRINTED


@dataclass(frozen=True)
class Step:
    """A circuit that keeps the first components of an order.

    Attributes:
        readout: the readout's label.
        kept: the number of components that it keeps.
        component: the last kept component; `none` if no component is kept, `all` for the whole model.
        faithfulness: f, without unit: 0 with all components ablated, 1 in the whole model.
        lost: the mean loss over prompts with the other components ablated, in the readout's unit.
    """

    readout: str
    kept: int
    component: str
    faithfulness: Interval
    lost: Interval


def steps(
    found: xr.Dataset, order: Sequence[Component], readout: str | None = None, bootstrap: Bootstrap | None = None
) -> tuple[Step, ...]:
    """Return the circuits of one readout, from no component to all.

    Args:
        found: the result of `hydrascope.analyses.faithfulness` with this order.
        order: the components, in the order in which they are kept.
        readout: the readout's label; by default the first.
        bootstrap: the resampling that gives the interval of `lost`.

    Raises:
        HydrascopeError: there is no such readout.
    """
    found = select_readout(found, readout)
    lost = mean_interval(-found["effect"], bootstrap or Bootstrap()).transpose("share", "bound").values
    faithful = found["faithfulness"].transpose("share", "bound").values
    kept = found["kept"].values
    return tuple(
        Step(
            str(found["readout"].values),
            int(number),
            _named(order, int(number)),
            Interval(*map(float, faithful[index])),
            Interval(*map(float, lost[index])),
        )
        for index, number in enumerate(kept)
    )


def _named(order: Sequence[Component], kept: int) -> str:
    return "none" if kept == 0 else "all" if kept == len(order) else str(order[kept - 1])


def circuit_in_text(found: xr.Dataset, rows: Sequence[Step], bootstrap: Bootstrap | None = None) -> Group:
    """Return a table of circuits for a terminal; of many circuits only some are shown."""
    shown = np.unique(np.linspace(0, len(rows) - 1, PRINTED).round().astype(int)) if len(rows) > PRINTED else None
    table = numbers_table(
        "How much of the model a circuit does",
        ("kept", "with"),
        ("f", "lost without the rest"),
        (
            [f"{row.kept:,}", row.component, format_interval(row.faithfulness, 2), format_interval(row.lost, 2)]
            for row in (rows if shown is None else [rows[index] for index in shown])
        ),
    )
    bootstrap = bootstrap or Bootstrap()
    cut = "" if shown is None else f" {len(shown)} of {len(rows):,} circuits are shown; all: --format csv."
    areas = {name: Interval.of(select_readout(found, rows[0].readout)[name]) for name in ("cpr", "cmd")}
    notes = (
        f"f: the readout {rows[0].readout} with the components up to this one kept and all others ablated, 0 where "
        f"none is kept, 1 in the whole model; a ratio of means over {found.sizes['prompt']:,} prompts, without bounds "
        f"where ablating everything may change nothing. Lost: mean −total, in {found.attrs.get('units', 'logits')}. "
        f"Areas over the share kept: under f (CPR) {format_interval(areas['cpr'], 2)}, under |1 − f| (CMD) "
        f"{format_interval(areas['cmd'], 2)}. Intervals: bootstrap over prompts, {percent(bootstrap.confidence)} "
        f"each.{cut}"
    )
    return Group(table, Text(""), Text(notes, style="dim"))
