"""Summaries of results: verdicts, findings and every ablated component, as text and as data."""

from hydrascope.reports.summary.faithfulness_table import Step, steps
from hydrascope.reports.summary.findings import Finding, strongest_component
from hydrascope.reports.summary.interval import (
    Interval,
    digits_for,
    format_interval,
    format_significant,
    number,
    percent,
)
from hydrascope.reports.summary.latex import as_latex
from hydrascope.reports.summary.map_table import MapCell, map_cells
from hydrascope.reports.summary.mediation_rows import Pair, Reaction
from hydrascope.reports.summary.path_table import PathPatchingRow, path_rows
from hydrascope.reports.summary.serialize import as_csv, as_json, as_markdown
from hydrascope.reports.summary.summarise import ComponentFindings, Summary, read_effects, run_in_words
from hydrascope.reports.summary.terminal import PRINTED, render
from hydrascope.reports.summary.verdict import Responder, Verdict
from hydrascope.reports.summary.verdict_text import clearest_verdict, one_line, sentences

__all__ = [
    "PRINTED",
    "ComponentFindings",
    "Finding",
    "Interval",
    "MapCell",
    "Pair",
    "PathPatchingRow",
    "Reaction",
    "Responder",
    "Step",
    "Summary",
    "Verdict",
    "as_csv",
    "as_json",
    "as_latex",
    "as_markdown",
    "clearest_verdict",
    "digits_for",
    "format_interval",
    "format_significant",
    "map_cells",
    "number",
    "one_line",
    "path_rows",
    "percent",
    "read_effects",
    "render",
    "run_in_words",
    "sentences",
    "steps",
    "strongest_component",
]
