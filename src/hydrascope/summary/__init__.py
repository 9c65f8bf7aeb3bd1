"""What a run found: the verdict first, then every finding and every part, for people and for programs."""

from hydrascope.summary.circuit import Step, steps
from hydrascope.summary.findings import Finding, strongest_part
from hydrascope.summary.formats import as_csv, as_json, as_markdown
from hydrascope.summary.numbers import Interval, number, percent, seen, surely, written
from hydrascope.summary.paths import Way, ways
from hydrascope.summary.sentences import clearest, in_short, sentences
from hydrascope.summary.terminal import PRINTED, render
from hydrascope.summary.verdict import Responder, Verdict
from hydrascope.summary.who_repairs import Pair, Reaction
from hydrascope.summary.whole import PartFindings, Summary, run_in_words, summarise

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
    "clearest",
    "in_short",
    "number",
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
