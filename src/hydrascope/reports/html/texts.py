"""What a page says in words: the verdicts, what each ablation does, and what holds of all numbers on it."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hydrascope._version import __version__
from hydrascope.measures import SIGMA_NAME, Bootstrap, EffectsOnly, outcome
from hydrascope.reports.html.array_encoding import STEPS
from hydrascope.reports.summary import ComponentFindings, Summary, format_interval, number, percent, sentences
from hydrascope.reports.summary.caveats import EFFECTS_ALONE
from hydrascope.reports.summary.verdict import Verdict
from hydrascope.reports.summary.verdict_text import headlines

#: Instead of a verdict.
ALONE = (
    "One prompt, measured now.",
    " What is restored on it says nothing of other prompts: there are no intervals and no verdict. Save it with all "
    "prompts of the pool to have both.",
)

#: Instead of views of what layers write, and of the warning that says so, where that wasn't kept.
NOT_KEPT = (
    "Effects alone were kept, not what layers write in ablated runs. To see who responds, and what each layer writes "
    "before and after, measure again and keep means (--keep means)."
)


def page_texts(found: Summary, effects: EffectsOnly) -> dict[str, Any]:
    """What the page says of one readout under one reading of σ."""
    of_part, read = {each.ablated: each for each in found.components}, effects.read_at
    how = f", {SIGMA_NAME[read]}" if read else ""
    return {
        "verdicts": _told(found),
        "warnings": [warning for warning in found.warnings if warning != EFFECTS_ALONE],
        "parts": [_said(of_part[str(name)], effects.unit, how) for name in effects["ablated"].values],
    }


def single_prompt_texts(effects: EffectsOnly) -> dict[str, Any]:
    """What it says of one prompt."""
    samples = outcome(effects).isel(prompt=0)
    lines = zip(*(samples[name].values for name in ("ablated", "removed", "lost")), strict=True)
    return {
        "verdicts": [ALONE],
        "warnings": [],
        "parts": [
            [f"Ablating {part} removes {number(removed, 2)} {effects.unit} and loses {number(lost, 2)}."]
            for part, removed, lost in lines
        ],
    }


def _told(found: Summary) -> list[tuple[str, str]]:
    """Every verdict's question and answer, and what else is said of it."""
    heads = headlines(found)
    return [(head, text.removeprefix(head)) for head, text in zip(heads, sentences(found), strict=True)]


def _said(part: ComponentFindings, of: str, how: str) -> list[str]:
    """What the ablation of one part does, in sentences; `how` σ is read, which shares depend on."""
    lost = f"loses {format_interval(part.lost, 2)} {of}"
    if np.isnan(part.removed.estimate):
        return [f"Ablating {part.ablated} {lost}; nothing is removed directly, where it is ablated."]
    removed = f"Ablating {part.ablated} removes {format_interval(part.removed, 2)} {of} and {lost}."
    if np.isnan(part.removed.low):
        return [removed, "One prompt has no intervals, and says nothing of others."]
    if np.isnan(part.restored.low):
        return [removed, "What share of it is restored can't be said: what it removes may be 0."]
    restored = f"Restored: {format_interval(part.restored, 2)} of what it removes"
    if part.adds:
        restored = f"It adds instead of removing: {format_interval(part.restored, 2)} of the increase is undone"
    if np.isnan(part.attention.estimate):
        return [removed, f"{restored}."]
    shares = (
        f"attention {format_interval(part.attention, 2)}, MLPs {format_interval(part.mlp, 2)}, the norm "
        f"{format_interval(part.norm, 2)}"
    )
    return [removed, f"{restored}; by {shares}{how}."]


def notes(bootstrap: Bootstrap | None, verdicts: Sequence[Verdict], *, traces: bool) -> Iterator[str]:
    """What holds of all numbers on the page.

    Args:
        bootstrap: how intervals are drawn, where there are any.
        verdicts: those of the page, whose intervals are wider where there are several.
        traces: whether there is what layers write in ablated runs.
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
                f"those of one part, so that all answers hold together at {level}."
            )
    still = (
        "Removed is −direct effect, lost −total effect, restored total − direct, means over patches, by the model’s "
        "own final norm: they don’t depend on how σ is read."
    )
    precise = "Numbers are kept in single precision."
    if traces:
        still += " What layers write in ablated runs does, and so does what attention, MLPs and the norm restore."
        precise += (
            f" What layers write on single prompts in ablated runs is rounded to {STEPS:,} steps of its range over "
            f"prompts, and by single patches over prompts and patches: off by at most 1/{2 * STEPS:,} of it."
        )
    yield still
    yield precise
    yield f"Made by hydrascope {__version__}. Every number was computed by it; this page only shows them."
