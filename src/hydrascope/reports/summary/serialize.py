"""The summary for programs and papers: JSON, CSV, Markdown."""

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from typing import Any

from hydrascope.reports.summary.interval import Interval, format_interval, format_significant
from hydrascope.reports.summary.mediation_rows import Pair, Reaction
from hydrascope.reports.summary.summarise import ComponentFindings, Summary
from hydrascope.reports.summary.terminal import cell, of_increase, value_of
from hydrascope.reports.summary.verdict_text import sentences

Row = ComponentFindings | Reaction | Pair


def as_json(summary: Summary) -> str:
    """All of it as one JSON object; what isn't known is null.

    json.loads(as_json(summary))["verdicts"][0]["restored"]["low"]
    """
    return json.dumps(_plain(asdict(summary)), indent=2, ensure_ascii=False, allow_nan=False)


def as_csv(summary: Summary) -> str:
    """A row for each ablated part, or for each reaction or pair where the run was about these.

    Each number comes with its bounds, as `NAME`, `NAME_low`, `NAME_high`.
    """
    return rows_as_csv(summary.reactions or summary.pairs or summary.components)


def rows_as_csv(rows: Sequence[Any]) -> str:
    """A row for each data class; an `Interval` in it as its number and its bounds, `NAME`, `NAME_low`, `NAME_high`."""
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    for number, row in enumerate(rows):
        values = dict(_values(row))
        if number == 0:
            table.writerow(values)
        table.writerow(values.values())
    return file.getvalue()


def _values(row: Any) -> Iterator[tuple[str, float | str]]:
    for field in fields(row):
        value = getattr(row, field.name)
        if not isinstance(value, Interval):
            yield field.name, value
            continue
        for name, number in (("", value.estimate), ("_low", value.low), ("_high", value.high)):
            yield field.name + name, "" if math.isnan(number) else number


def as_markdown(summary: Summary) -> str:
    """The verdict, then the findings and the parts as tables."""
    findings = [[each.name, value_of(each), each.meaning, each.paper] for each in summary.findings]
    blocks = [
        *sentences(summary),
        *(f"Note: {warning}." for warning in summary.warnings),
        *([_table(["finding", "this run", "how", "Chinchilla 7B"], findings)] if findings else []),
        *(_of_rows(rows) for rows in (summary.components, summary.reactions, summary.pairs) if rows),
        *of_increase(summary.components),
    ]
    return "\n\n".join(blocks) + "\n"


def _of_rows(rows: Sequence[Row]) -> str:
    names = [field.name for field in fields(rows[0]) if field.name != "kind"]
    return _table(names, [[_cell(row, name) for name in names] for row in rows])


def _cell(row: Row, name: str) -> str:
    value = getattr(row, name)
    if not isinstance(value, Interval):
        return str(value)
    return cell(row, name, _written) if isinstance(row, ComponentFindings) else format_significant(value)


def _written(value: Interval) -> str:
    return format_interval(value, 2)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(each.replace('|', chr(92) + '|') for each in line)} |" for line in lines)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
