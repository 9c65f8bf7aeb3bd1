"""The texts of a page: its verdicts, a text for each ablation, and notes on its numbers."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hydrascope._version import __version__
from hydrascope.measures import SIGMA_NAME, Bootstrap, EffectsOnly, outcome
from hydrascope.reports.html.array_encoding import STEPS
from hydrascope.reports.summary import ComponentFindings, Summary, format_interval, number, percent, sentences
from hydrascope.reports.summary.caveats import EFFECTS_ALONE
from hydrascope.reports.summary.interval import format_share, format_significant
from hydrascope.reports.summary.split_rows import COLUMNS, NARROW, of_first_readout
from hydrascope.reports.summary.verdict import Verdict
from hydrascope.reports.summary.verdict_text import clearest_first, headlines

#: The number of mediators in the table, those that restore most.
RANKED = 12

#: The text instead of a verdict.
ALONE = (
    "One prompt, measured now.",
    " The restored amount says nothing about other prompts: there are no intervals and no verdict. Save it with all "
    "prompts of the pool to have both.",
)

#: The text instead of traces and responses, if only effects were kept; it replaces the warning of the summary.
NOT_KEPT = (
    "Only effects were kept, not the writes of sublayers in ablated runs. To see who responds, and what each sublayer "
    "writes before and after, measure again and keep means (--keep means)."
)


def page_texts(summary: Summary, effects: EffectsOnly) -> dict[str, Any]:
    """Return the page's texts on one readout under one reading of σ."""
    findings_by_name = {each.ablated: each for each in summary.components}
    sigma = effects.read_at
    sigma_text = f", {SIGMA_NAME[sigma]}" if sigma else ""
    return {
        "verdicts": _verdict_texts(summary),
        "ranked": _ranked(summary, effects.unit),
        "warnings": [warning for warning in summary.warnings if warning != EFFECTS_ALONE],
        "ablations": [
            _ablation_text(findings_by_name[str(name)], effects.unit, sigma_text) for name in effects["ablated"].values
        ],
    }


def _ranked(summary: Summary, unit: str) -> dict[str, Any] | None:
    """Return the table of mediators, or of splits."""
    if summary.reactions:
        return {
            "caption": (
                "The mediators that restore most: lost again if one is frozen; brought back by it alone; its own "
                f"response. In {unit}, with bounds that hold for all at once."
            ),
            "head": ["Ablated", "Mediator", "Lost again without it", "Brought by it alone", "Writes more"],
            "rows": [
                [
                    row.ablated,
                    row.mediator,
                    *map(format_significant, (row.restored_by, row.restored_alone, row.response)),
                ]
                for row in summary.reactions[:RANKED]
            ],
        }
    if summary.splits:
        return {
            "caption": (
                "Damping and content repair. Restored: slope of removed − lost on removed over prompts. Damping: the "
                "share of the missing push along the readout alone that comes back. Content repair: what comes back "
                "where the rest alone is missing, as a slope on what the whole removes. Boost: as restored, where the "
                "component writes more of the same. All with bounds that hold for all at once."
            ),
            "head": ["Ablated", *(COLUMNS[name].capitalize() for name in NARROW)],
            "rows": [
                [row.ablated, *(format_interval(getattr(row, name), 2) for name in NARROW)]
                for row in of_first_readout(summary.splits)[:RANKED]
            ],
        }
    return None


def single_prompt_texts(effects: EffectsOnly) -> dict[str, Any]:
    """Return the page's texts on one prompt."""
    samples = outcome(effects).isel(prompt=0)
    lines = zip(*(samples[name].values for name in ("ablated", "removed", "lost")), strict=True)
    return {
        "verdicts": [ALONE],
        "ranked": None,
        "warnings": [],
        "ablations": [
            [f"Ablating {name} removes {number(removed, 2)} {effects.unit} and loses {number(lost, 2)}."]
            for name, removed, lost in lines
        ],
    }


def _verdict_texts(summary: Summary) -> list[tuple[str, str]]:
    """Return the headline of every verdict and the text that follows it, the clearest first."""
    summary = clearest_first(summary)
    heads = headlines(summary)
    return [(head, text.removeprefix(head)) for head, text in zip(heads, sentences(summary), strict=True)]


def _ablation_text(findings: ComponentFindings, unit: str, sigma_text: str) -> list[str]:
    """Return sentences on the effect of one ablation; `sigma_text` names the reading of σ."""
    lost = f"loses {format_interval(findings.lost, 2)} {unit}"
    if np.isnan(findings.removed.estimate):
        return [f"Ablating {findings.ablated} {lost}; nothing is removed directly at the ablated positions."]
    removed = f"Ablating {findings.ablated} removes {format_interval(findings.removed, 2)} {unit} and {lost}."
    if np.isnan(findings.removed.low):
        return [removed, "One prompt has no intervals, and says nothing about others."]
    if np.isnan(findings.restored.low):
        return [removed, "The share restored is unknown: the removed amount may be 0."]
    restored = f"{format_share(findings.restored)} of it comes back"
    if findings.adds:
        restored = f"It adds instead of removing: {format_share(findings.restored)} of the increase is undone"
    if np.isnan(findings.attention.estimate):
        return [removed, f"{restored}."]
    shares = (
        f"attention {format_interval(findings.attention, 2)}, MLPs {format_interval(findings.mlp, 2)}, the norm "
        f"{format_interval(findings.norm, 2)}"
    )
    return [removed, f"{restored}. Shares: {shares}{sigma_text}."]


def notes(bootstrap: Bootstrap | None, verdicts: Sequence[Verdict], *, traces: bool) -> Iterator[str]:
    """Yield the notes on all numbers of the page.

    Args:
        bootstrap: the resampling that gives the intervals; None if there are none.
        verdicts: the verdicts of the page; several have wider intervals.
        traces: whether the page shows the writes of sublayers in ablated runs.
    """
    if bootstrap is not None:
        level = percent(bootstrap.confidence)
        yield (
            f"Intervals: {level}, bootstrap over prompts, {bootstrap.resamples:,} resamples; those of a matrix hold "
            "for all its cells at once (max-t)."
        )
        if len(verdicts) > 1:
            yield (
                f"In the {len(verdicts)} answers above they are {percent(verdicts[0].confidence)}, and so wider than "
                f"those of one component, so that all answers hold together at {level}."
            )
    effects_note = (
        "Removed is −direct effect, lost −total effect, restored total − direct, means over patches, by the model’s "
        "own final norm: they don’t depend on how σ is read."
    )
    precision_note = "Numbers are kept in single precision."
    if traces:
        effects_note += (
            " Writes of sublayers in ablated runs do, and so do the amounts that attention, MLPs and the norm restore."
        )
        precision_note += (
            f" Writes of sublayers on single prompts in ablated runs are rounded to {STEPS:,} steps of their range "
            f"over prompts, and by single patches over prompts and patches: off by at most 1/{2 * STEPS:,} of it."
        )
    yield effects_note
    yield precision_note
    yield (
        f"Made by hydrascope {__version__}. Every number was computed by it; this page only subtracts writes for the "
        "responses of one prompt, and counts prompts in the histogram."
    )
