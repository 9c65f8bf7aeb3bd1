"""The ledger of a verdict as bars of text: what is removed, and what becomes of it."""

from collections.abc import Iterator, Mapping

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hydrascope.reports.summary.interval import Interval, format_interval
from hydrascope.reports.summary.verdict import Verdict
from hydrascope.reports.summary.verdict_text import QUESTION, asked, counts_in_words

#: The length of the bars, in characters.
_LENGTH = 60
_NAMES = ("attention", "MLPs", "the norm", "lost")
_FILLS = ("▒", "▓", "█", "·")
#: The fill of amounts below 0: they add to what is missing.
_MISSING = "▚"


def parts(verdict: Verdict) -> list[tuple[str, Interval]]:
    """Return the amounts of attention, MLPs, norm and loss, which add up to the removed amount."""
    return list(zip(_NAMES, (*verdict.amounts, verdict.lost), strict=True))


def ledger(verdict: Verdict, unit: str) -> Group:
    """Return two bars of equal length, and their key.

    The upper bar is what is removed, and what adds to it: amounts below 0. The lower bar is what becomes of it.
    """
    amounts = [(name, fill, value) for (name, value), fill in zip(parts(verdict), _FILLS, strict=True)]
    negative = sum(-value.estimate for _, _, value in amounts if value.estimate < 0)
    whole = verdict.removed.estimate + negative
    upper = [("█", verdict.removed.estimate), (_MISSING, negative)]
    lower = [(fill, max(value.estimate, 0.0)) for _, fill, value in amounts]
    key = "  ".join(
        f"{fill if value.estimate >= 0 else _MISSING} {name} {format_interval(value, 2)}"
        for name, fill, value in amounts
    )
    return Group(
        Text(f"  removed {_bar(upper, whole)}"),
        Text(f"  became  {_bar(lower, whole)}"),
        Text(f"  Removed {format_interval(verdict.removed, 2)} {unit}: {key}.", style="dim"),
    )


def _bar(segments: list[tuple[str, float]], whole: float) -> str:
    """Return a bar of `_LENGTH` characters; the ends of its segments are rounded."""
    ends = np.round(np.cumsum([value for _, value in segments]) / whole * _LENGTH).astype(int)
    return "".join(fill * (end - start) for (fill, _), start, end in zip(segments, [0, *ends], ends, strict=False))


def answers(verdict: Verdict, run: Mapping[str, str]) -> Iterator[RenderableType]:
    """Yield a table of the three questions on all components of the kind."""
    if not any(each.asked for each in verdict.answers):
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    for each in verdict.answers:
        table.add_row(f"    {QUESTION[each.question]}?", each.answer, Text(counts_in_words(each)))
    yield Text(f"  {asked(verdict, run)}:")
    yield table
