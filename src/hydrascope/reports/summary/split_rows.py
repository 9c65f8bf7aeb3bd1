"""The rows of a split, and a sentence on each component's repair."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from hydrascope import measures
from hydrascope.measures import Bootstrap
from hydrascope.reports.summary.interval import Interval, format_interval, format_share


@dataclass(frozen=True)
class SplitRow:
    """The split of one ablation (`hydrascope.measures.split`).

    All bounds hold for all ablations of the run at once.

    Attributes:
        ablated: the label of the ablation.
        readout: the label of the readout that splits and is read.
        restored_slope: the share restored prompt by prompt after the whole ablation.
        damping: the share of the readout part's effect that is undone.
        content_repair: what comes back where the content alone is missing, as a share of what the whole removes.
        content_share: the content's share of both.
        boost_slope: the share undone prompt by prompt where the component writes more of the same.
        one_sided: the even part's share of the response's energy.
    """

    ablated: str
    readout: str
    restored_slope: Interval
    damping: Interval
    content_repair: Interval
    content_share: Interval
    boost_slope: Interval
    one_sided: Interval

    @property
    def answer(self) -> str:
        """Return whether damping or content repair is surely larger, and above 0; or `can't tell`."""
        if self.damping.low > max(self.content_repair.high, 0):
            return "prediction"
        if self.content_repair.low > max(self.damping.high, 0):
            return "content"
        return "can't tell"


#: The names of the columns of a table of splits.
COLUMNS = {
    "restored_slope": "restored (slope)",
    "damping": "damping",
    "content_repair": "content repair",
    "content_share": "content’s share",
    "boost_slope": "boost (slope)",
    "one_sided": "one-sided",
}
#: The columns for which a terminal and a page on a phone have room.
NARROW = ("restored_slope", "damping", "content_repair", "boost_slope")
_ANSWERS = {
    "prediction": "So the network answers mostly to the missing prediction, as negative feedback would",
    "content": "So the network answers mostly to the missing content, as a backup would",
    "can't tell": "Which of the two is the larger can’t be told",
}


def split_rows(
    results: xr.Dataset, readout: str, removed: Mapping[str, Interval], bootstrap: Bootstrap
) -> tuple[SplitRow, ...]:
    """Return the split of each ablation on one readout, then on the others but placebos.

    On each, those that surely remove come first, the most removing ahead.

    Args:
        results: of a run of `hydrascope.Split`.
        readout: the label of the first readout.
        removed: what each ablation removes, by label.
        bootstrap: how bounds are drawn.
    """
    others = [str(each) for each in np.atleast_1d(results["readout"].values) if not str(each).startswith("placebo")]
    rows = []
    for each in dict.fromkeys([readout, *others]):
        table = measures.split(results, each, bootstrap)
        rows += [
            SplitRow(str(label), each, **{name: Interval.of(table[name].sel(ablated=label)) for name in COLUMNS})
            for label in table["ablated"].values
            if np.isfinite(table["damping"].sel(ablated=label, bound="estimate"))
        ]

    def place(row: SplitRow) -> tuple[bool, bool, float]:
        amount = removed[row.ablated]
        return row.readout != readout, not amount.low > 0, -amount.estimate

    return tuple(sorted(rows, key=place))


def split_sentences(rows: Sequence[SplitRow], components: Sequence[str]) -> Iterator[str]:
    """Yield a sentence on the damping and the content repair of each component.

    Args:
        rows: the splits.
        components: the components that verdicts are about; of those without a split nothing is said.
    """
    for name in dict.fromkeys(components):
        several = [row for row in rows if row.ablated == name]
        told = [_in_words(row, several[0].readout) for row in several]
        if told:
            yield f"Repair of {name}: {' '.join(told)}"


def _in_words(row: SplitRow, first: str) -> str:
    other = f"On {row.readout}, " if row.readout != first else ""
    damped, restored = format_share(row.damping), format_interval(row.content_repair, 2)
    return (
        f"{other}of the missing push along the readout alone {damped} comes back (damping); where its content alone is "
        f"missing, {restored} of what it removes. {_ANSWERS[row.answer]}."
    )


def of_first_readout(rows: Sequence[SplitRow]) -> list[SplitRow]:
    """Return the splits on the readout that comes first."""
    return [row for row in rows if row.readout == rows[0].readout]
