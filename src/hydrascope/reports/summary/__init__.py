"""What a run found: the verdict first, then every finding and every part, for people and for programs."""

from hydrascope.reports.summary.faithfulness_table import Step, steps
from hydrascope.reports.summary.findings import Finding, strongest_part
from hydrascope.reports.summary.interval import Interval, number, percent, seen, surely, written
from hydrascope.reports.summary.mediation_rows import Pair, Reaction
from hydrascope.reports.summary.path_table import Way, ways
from hydrascope.reports.summary.serialize import as_csv, as_json, as_markdown
from hydrascope.reports.summary.summarise import PartFindings, Summary, run_in_words, summarise
from hydrascope.reports.summary.terminal import PRINTED, render
from hydrascope.reports.summary.verdict import Responder, Verdict
from hydrascope.reports.summary.verdict_text import clearest_verdict, one_line, sentences

__all__ = [
    "PRINTED",
    "Finding",
    "Interval",
    "Pair",
    "PartFindings",
    "Reaction",
    "Responder",
    "Step",
    "Summary",
    "Verdict",
    "Way",
    "as_csv",
    "as_json",
    "as_markdown",
    "clearest_verdict",
    "number",
    "one_line",
    "percent",
    "render",
    "run_in_words",
    "seen",
    "sentences",
    "steps",
    "strongest_part",
    "summarise",
    "surely",
    "ways",
    "written",
]
