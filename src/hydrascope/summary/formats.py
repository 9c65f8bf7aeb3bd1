"""The summary for programs and papers: JSON, CSV, Markdown."""

import csv
import io
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Any

from hydrascope.summary.findings import PartFindings, Summary
from hydrascope.summary.numbers import Interval, written
from hydrascope.summary.sentences import sentences
from hydrascope.summary.terminal import value_of

_NUMBERS = [field.name for field in fields(PartFindings) if field.type is Interval]


def as_json(summary: Summary) -> str:
    """All of it as one JSON object; what isn't known is null.

    json.loads(as_json(summary))["verdicts"][0]["restored"]["low"]
    """
    return json.dumps(_plain(asdict(summary)), indent=2, ensure_ascii=False, allow_nan=False)


def as_csv(summary: Summary) -> str:
    """A row for each ablated part, each number with its bounds as `NAME`, `NAME_low`, `NAME_high`."""
    file = io.StringIO()
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(
        ["ablated", "kind", *(column for name in _NUMBERS for column in (name, f"{name}_low", f"{name}_high"))]
    )
    for part in summary.parts:
        rows.writerow([part.ablated, part.kind, *_values(part)])
    return file.getvalue()


def _values(part: PartFindings) -> Iterator[float | str]:
    for name in _NUMBERS:
        value: Interval = getattr(part, name)
        for number in (value.estimate, value.low, value.high):
            yield "" if math.isnan(number) else number


def as_markdown(summary: Summary) -> str:
    """The verdict, then the findings and the parts as tables."""
    findings = [[each.name, value_of(each), each.meaning, each.paper] for each in summary.findings]
    parts = [[part.ablated, *(written(getattr(part, name), 2) for name in _NUMBERS)] for part in summary.parts]
    blocks = [
        *sentences(summary),
        *(f"Note: {warning}." for warning in summary.warnings),
        _table(["finding", "this run", "how", "Chinchilla 7B"], findings),
        _table(["ablated", *_NUMBERS], parts),
    ]
    return "\n\n".join(blocks) + "\n"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(each.replace('|', chr(92) + '|') for each in line)} |" for line in lines)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
