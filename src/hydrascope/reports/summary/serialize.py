"""The summary as JSON, CSV and Markdown."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

import pandas as pd

from hydrascope.reports.summary.interval import Interval, format_interval, format_significant
from hydrascope.reports.summary.mediation_rows import Pair, Reaction
from hydrascope.reports.summary.split_rows import SplitRow
from hydrascope.reports.summary.summarise import ComponentFindings, Summary
from hydrascope.reports.summary.terminal import cell, of_increase, value_of
from hydrascope.reports.summary.verdict_text import sentences

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Row = ComponentFindings | Reaction | Pair | SplitRow


def as_json(report: "DataclassInstance") -> str:
    """Return a summary, or another report, as one JSON object; unknown numbers are null.

    >>> import json
    >>> low = json.loads(as_json(hs.reports.summarise(results)))["verdicts"][0]["restored"]["low"]
    """
    return json.dumps(plain(asdict(report)), indent=2, ensure_ascii=False, allow_nan=False)


def as_csv(summary: Summary) -> str:
    """Return a row for each ablated component as CSV.

    If the summary has reactions, pairs or splits, the rows are these. Each number has the columns `NAME`,
    `NAME_low` and `NAME_high`.
    """
    return rows_as_csv(summary.reactions or summary.pairs or summary.splits or summary.components)


def rows_as_csv(rows: Sequence[Any]) -> str:
    """Return a CSV row for each data class or mapping.

    An `Interval` gives the columns `NAME`, `NAME_low` and `NAME_high`; unknown numbers are empty.
    """
    return pd.DataFrame([dict(_values(row)) for row in rows]).to_csv(index=False, lineterminator="\n") if rows else ""


def _values(row: Any) -> Iterator[tuple[str, Any]]:
    values = row if isinstance(row, Mapping) else {field.name: getattr(row, field.name) for field in fields(row)}
    for name, value in values.items():
        if isinstance(value, Interval):
            yield from ((name, value.estimate), (f"{name}_low", value.low), (f"{name}_high", value.high))
        else:
            yield name, value


def as_markdown(summary: Summary) -> str:
    """Return the verdicts, and the findings and components as Markdown tables."""
    findings = [[each.name, value_of(each), each.meaning, each.paper] for each in summary.findings]
    blocks = [
        *sentences(summary),
        *(f"Note: {warning}." for warning in summary.warnings),
        *([_table(["finding", "this run", "how", "Chinchilla 7B"], findings)] if findings else []),
        *(_rows_table(rows) for rows in (summary.components, summary.reactions, summary.pairs, summary.splits) if rows),
        *of_increase(summary.components),
    ]
    return "\n\n".join(blocks) + "\n"


def _rows_table(rows: Sequence[Row]) -> str:
    names = [field.name for field in fields(rows[0]) if field.name != "kind" and has_numbers(rows, field.name)]
    return _table(names, [[cell_text(row, name) for name in names] for row in rows])


def has_numbers(rows: Sequence[Row], name: str) -> bool:
    """Whether a field is known of any row."""
    values = [getattr(row, name) for row in rows]
    return any(not isinstance(value, Interval) or not math.isnan(value.estimate) for value in values)


def cell_text(row: Row, name: str) -> str:
    """Return one value of a row as text, a number with its interval."""
    value = getattr(row, name)
    if not isinstance(value, Interval):
        return str(value)
    return cell(row, name, _two_digits) if isinstance(row, ComponentFindings) else format_significant(value)


def _two_digits(value: Interval) -> str:
    return format_interval(value, 2)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(each.replace('|', chr(92) + '|') for each in line)} |" for line in lines)


def plain(value: Any) -> Any:
    """Return nested data as JSON values; numbers that are not finite become null."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
