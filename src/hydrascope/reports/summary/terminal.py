"""The summary for a terminal of 80 columns."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hydrascope.measures import NEGLIGIBLE, ComponentAnswer
from hydrascope.reports.summary.findings import Finding
from hydrascope.reports.summary.interval import (
    Interval,
    digits_for,
    format_interval,
    format_share,
    format_significant,
    number,
    percent,
)
from hydrascope.reports.summary.ledger import answers, ledger
from hydrascope.reports.summary.split_rows import COLUMNS, NARROW, of_first_readout
from hydrascope.reports.summary.summarise import ComponentFindings, Summary
from hydrascope.reports.summary.table import numbers_table
from hydrascope.reports.summary.verdict import Verdict
from hydrascope.reports.summary.verdict_text import (
    ASKED_NAME,
    POOLED,
    POOLED_SHARES,
    QUESTION,
    kick_sentences,
    largest,
    placebo_sentence,
    sentences,
    title,
    told_splits,
)
from hydrascope.utils.text import counted

if TYPE_CHECKING:
    from hydrascope.reports.summary.comparison import Comparison

#: The number of heads and neurons printed: the strongest.
PRINTED = 20

#: The columns of the table of ablated components.
_HEADINGS = {
    "direct": "DE",
    "removed": "removed",
    "lost": "lost",
    "restored": "restored",
    "attention": "attention",
    "mlp": "MLPs",
    "norm": "norm",
    "slope": "slope",
    "r2": "R²",
    "correlation": "r",
    "normalised": "share",
}
_REACTION = ("restored by it", "by it alone", "it writes more")
_PAIR = ("interaction", "second loses", "once first is gone")
#: The note on the normalised share, by the direction of patching.
NORMALISED = {
    "noising": "Share: (patched − corrupt) / (clean − corrupt), where corrupt activations are put into the clean run",
    "denoising": "Share: (patched − corrupt) / (clean − corrupt), where clean activations are put into the corrupt run",
}
#: The mark of a share restored that is a share of an increase.
_ADDS = "†"
_AMOUNTS = ("direct", "removed", "lost")
_RATIOS = ("restored", "attention", "mlp", "norm", "normalised")


def render(summary: Summary, *, full: bool = False) -> Group:
    """Return the summary as text and tables for a terminal.

        >>> text = hs.reports.render(hs.reports.summarise(results), full=True)

    Args:
        summary: the summary of a result.
        full: whether to add every finding and every ablated component.

    Returns:
        A renderable for `rich.print`.
    """
    verdicts: list[RenderableType] = [_verdict(verdict, summary) for verdict in summary.verdicts]
    texts = [Text(sentence) for sentence in sentences(replace(summary, verdicts=()))]
    warnings = [Text(f"Note: {warning}.") for warning in summary.warnings]
    full = full or not (verdicts or texts)
    more = [_findings(summary)] if full and summary.findings else []
    more += [
        _answers(verdict, summary)
        for verdict in summary.verdicts
        if full and any(each.asked for each in verdict.answers)
    ]
    more += [_components(summary)] if full and summary.components else []
    more += [_reactions(summary, full=full)] if summary.reactions else []
    more += [_pairs(summary, full=full)] if summary.pairs else []
    more += [_splits(summary, full=full)] if summary.splits else []
    notes = Text("\n".join(_notes(summary, full=full)), style="dim")
    settings = Text(_settings(summary.run), style="dim")
    splits = [Text(sentence) for sentence in told_splits(summary)]
    blocks: list[RenderableType] = [settings, *texts, *verdicts, *splits, *warnings, *more, notes]
    return Group(*[line for block in blocks for line in (block, Text(""))][:-1])


def _verdict(verdict: Verdict, summary: Summary) -> Group:
    """Return the finding at one component, its ledger, and the answers to the three questions."""
    lines: list[RenderableType] = [Text(title(verdict, summary.run), style="bold")]
    if verdict.pooled:
        lines.append(Text(f"{POOLED}."))
    if np.isfinite(verdict.restored.low):
        lines.append(ledger(verdict, summary.run["unit"]))
    if verdict.responders:
        lines.append(Text(f"  Largest responses, as shares of what is removed: {largest(verdict)}."))
    if row := _of_component(summary, verdict):
        share = format_share(row.normalised)
        lines.append(Text(f"  Patched, the readout is {share} of the way from the corrupt to the clean run."))
    if np.isfinite(verdict.placebo.estimate):
        lines.append(Text(f"  {placebo_sentence(verdict, summary.run['unit'])}"))
    lines += [Text(f"  {sentence}") for sentence in kick_sentences(verdict, summary)]
    return Group(*lines, *answers(verdict, summary.run))


def _of_component(summary: Summary, verdict: Verdict) -> ComponentFindings | None:
    """Return the numbers of a verdict's component if its normalised share is known."""
    known = (row for row in summary.components if row.ablated == verdict.component)
    return next((row for row in known if np.isfinite(row.normalised.low)), None)


def _settings(run: Mapping[str, str]) -> str:
    """Return the settings of a run in one sentence."""
    of = f" of {run['of']}" if "of" in run else ""
    how = [f"{run[name]}" for name in ("engine", "dtype") if name in run]
    patches, prompts = counted(run["patches"], "patch", "patches"), counted(run["prompts"], "prompt", "prompts")
    model = ", ".join(run[name] for name in ("model", "weights changed") if name in run) or "a model"
    return (
        f"{model}: {run['ablated']} ablated ({run.get('ablation', '?')}, {patches}, at "
        f"{run.get('positions', '?')}), {prompts}{of}; {', '.join(how)}."
    )


def _findings(summary: Summary) -> Table:
    table = Table(title=f"Findings, with {percent(summary.bootstrap.confidence)} intervals", title_justify="left")
    table.add_column("finding, and how it is measured")
    table.add_column("this run", justify="right")
    table.add_column("Chinchilla 7B", justify="right", max_width=10)
    for each in summary.findings:
        table.add_row(Text(each.name).append(f"\n  {each.meaning}", style="dim"), value_of(each), Text(each.paper))
    return table


def value_of(finding: Finding) -> str:
    """Format a finding's value; `nowhere` replaces the number that means no block."""
    if finding.nowhere is None:
        return format_interval(finding.value, 0 if finding.whole else 2)
    value = finding.value
    named = [
        "nowhere" if each == finding.nowhere else number(each, 0) for each in (value.estimate, value.low, value.high)
    ]
    return named[0] if np.isnan(value.low) else f"{named[0]} [{named[1]}, {named[2]}]"


def _answers(verdict: Verdict, summary: Summary) -> Table:
    """Return the three answers at every component that surely writes for the readout."""
    by_question = [{each.ablated: each for each in found.each if each.asked} for found in verdict.answers]
    kept = {each.ablated for each in printed(summary.components)}
    labels = [label for label in dict.fromkeys(chain(*by_question)) if label in kept]
    rows = ([label, *(_answer_in_words(found.get(label)) for found in by_question)] for label in labels)
    headings = [QUESTION[found.question].lower() for found in verdict.answers]
    return numbers_table(f"{ASKED_NAME[verdict.kind]}: three answers each", ["ablated"], headings, rows)


def _answer_in_words(found: ComponentAnswer | None) -> str:
    """Return the answer at one component with its number, or a dash if it has none."""
    if found is None:
        return "–"
    return found.answer if np.isnan(found.low) else f"{found.answer} {number(found.estimate, 2)}"


def _components(summary: Summary) -> Table:
    shown = printed(summary.components)
    # A column without any number is left out.
    columns = [name for name in _HEADINGS if any(np.isfinite(getattr(row, name).estimate) for row in shown)]
    if "normalised" in columns and "correlation" in columns:
        columns.remove("correlation")  # 80 columns have no room for both
    # A table with shares has two digits: there is no room for more, and small amounts have no shares.
    amounts = set(columns) <= set(_AMOUNTS)
    digits = {name: digits_for(getattr(row, name).estimate for row in shown) if amounts else 2 for name in columns}
    rows = ([row.ablated, *(cell(row, name, partial(_estimate, digits[name])) for name in columns)] for row in shown)
    return numbers_table("Ablations", ["ablated"], [_HEADINGS[name] for name in columns], rows)


def _estimate(digits: int, value: Interval) -> str:
    return number(value.estimate, digits)


def _reactions(summary: Summary, *, full: bool) -> Table:
    """Return a table of all reactions, or of those that restore most."""
    rows = (
        [row.ablated, row.mediator, *map(format_significant, (row.restored_by, row.restored_alone, row.response))]
        for row in (summary.reactions if full else summary.reactions[:PRINTED])
    )
    return numbers_table("Whose reaction restores what", ("ablated", "mediator"), _REACTION, rows)


def _pairs(summary: Summary, *, full: bool) -> Table:
    """Return a table of all pairs, or of the most redundant and the most synergistic."""
    shown = summary.pairs
    if not full and len(shown) > PRINTED:
        shown = shown[: PRINTED // 2] + shown[-PRINTED // 2 :]
    rows = (
        [row.first, row.second, *map(format_significant, (row.interaction, row.lost, row.lost_after))] for row in shown
    )
    return numbers_table("Who covers for whom", ("first", "second"), _PAIR, rows)


def _splits(summary: Summary, *, full: bool) -> Table:
    """Return a table of all splits, or of the ablations that remove most, on the first readout."""
    names = list(COLUMNS) if full else NARROW
    first = summary.splits[0].readout
    rows = (
        [
            row.ablated if row.readout == first else f"{row.ablated} on {row.readout}",
            *(format_interval(getattr(row, name), 2) for name in names),
        ]
        for row in (summary.splits if full else of_first_readout(summary.splits)[:PRINTED])
    )
    return numbers_table("Damping and content repair", ("ablated",), tuple(COLUMNS[name] for name in names), rows)


def printed(components: tuple[ComponentFindings, ...]) -> list[ComponentFindings]:
    """Return all sublayers and joint ablations, and the strongest units."""
    units = [each for each in components if each.kind in ("head", "neuron", "feature")]
    weak = sorted(units, key=lambda each: (-np.nan_to_num(each.removed.estimate), -each.lost.estimate))[PRINTED:]
    left_out = {each.ablated for each in weak}
    return [each for each in components if each.ablated not in left_out]


def cell(row: ComponentFindings, name: str, write: Callable[[Interval], str]) -> str:
    """Format one number of an ablation for a table.

    A share without bounds is a dash; a share of an increase has a mark (`of_increase`).
    """
    value: Interval = getattr(row, name)
    mark = _ADDS if name == "restored" and row.adds else ""
    return write(value.if_bounded if name in _RATIOS else value) + mark


def of_increase(components: Iterable[ComponentFindings]) -> list[str]:
    """Return the note that explains the mark of `cell`, if any of the ablations has one."""
    note = f"{_ADDS} adds instead of removing: restored is then the share of the increase that is undone."
    return [note] if any(each.adds for each in components) else []


def _notes(summary: Summary, *, full: bool) -> Iterator[str]:
    unit, level = summary.run["unit"], percent(summary.bootstrap.confidence)
    if summary.verdicts:
        yield (
            "Removed: mean −direct. Lost: mean −total. What comes back is the difference: what later attention "
            "and MLPs write more, and the norm by its change of scale. The component is the one of which the "
            "largest share comes back, chosen on one half of the prompts and measured on the other. Compensation:"
            " slope of CE on DE over prompts. Prompt by prompt: slope of removed − lost on removed. On average: 1"
            " − lost/removed. Intervals: "
            f"{percent(summary.verdicts[0].confidence)}, so that those of all kinds hold at {level}; counts by bounds "
            "that hold for all components of a kind at once."
        )
    if summary.reactions:
        yield (
            f"restored by it: what is lost again, in {unit}, if the mediator is frozen at its clean values. By it "
            "alone: what it brings if everything else downstream is frozen. It writes more: its response. Bounds of "
            f"the first two hold for all pairs at once.{_cut(summary.reactions, full=full)}"
        )
    if summary.pairs:
        yield (
            f"interaction: what ablating both does less what each does alone, in {unit}, with bounds that hold for all "
            f"pairs at once: below 0 each covers for the other. Loses: mean −total.{_cut(summary.pairs, full=full)}"
        )
    if summary.splits:
        yield (
            "restored: slope of removed − lost on removed over prompts. damping: the share of the missing push along "
            "the readout alone that comes back. content repair: what comes back where the rest alone is missing, as a "
            "slope on what the whole removes. boost: as restored, where the component writes more of the same. "
            "one-sided: the "
            "even part’s share of the response. Shares, with bounds for all ablations at once."
            f"{_cut(summary.splits, full=full)}"
        )
    if full and any(verdict.answers for verdict in summary.verdicts):
        yield (
            "Three answers: yes where the number is surely above 0, no where it is surely below "
            f"{NEGLIGIBLE:.0%}, by bounds that hold for all components of the kind at once (in --format json); "
            "components that don't surely write for the readout are left out."
        )
    if full and _any_known(summary, "direct"):
        correlation = "" if _any_known(summary, "normalised") else " r: correlation of DE and lost."
        yield f"DE: Δ unembed, in {unit}. slope, R²: of CE on DE over prompts.{correlation} –: not defined."
    if "patching" in summary.run and (full or any(_of_component(summary, each) for each in summary.verdicts)):
        yield f"{NORMALISED[summary.run['patching']]}. Ratio of means over prompts."
    if full:
        yield from of_increase(printed(summary.components))
    left_out = len(summary.components) - len(printed(summary.components))
    if full and left_out:
        do = "remove" if _any_known(summary, "removed") else "lose"
        yield f"Of heads and neurons the {PRINTED} that {do} most are listed; {left_out:,} are left out."
    yield (
        f"Readout: {summary.run['readout']}. Intervals: bootstrap over prompts, "
        f"{summary.bootstrap.resamples:,} resamples, seed {summary.bootstrap.seed}."
    )
    if not full and not summary.pairs:
        yield "Every finding and every component: --full."


def _any_known(summary: Summary, name: str) -> bool:
    """Whether this number is known of any ablation."""
    return any(np.isfinite(getattr(row, name).estimate) for row in summary.components)


def _cut(rows: Sequence[object], *, full: bool) -> str:
    return f" {PRINTED} of {len(rows):,} are shown; all: --full." if not full and len(rows) > PRINTED else ""


def side_by_side(comparison: "Comparison") -> Group:
    """Return the table of a comparison for a terminal."""
    table = numbers_table(
        "What comes back after an ablation",
        ("result", "ablated", "comes back?", "at"),
        ("share", "less the first’s"),
        (
            [
                row.name,
                ASKED_NAME[row.verdict.kind],
                row.verdict.answer,
                row.verdict.component,
                format_interval(row.verdict.restored.if_bounded, 2),
                format_interval(row.restored, 2),
            ]
            for row in comparison.rows
        ),
    )
    notes = [f"Note: {warning}." for warning in comparison.warnings]
    pooled = f"; {POOLED_SHARES}" if any(row.verdict.pooled for row in comparison.rows) else ""
    notes.append(
        "restored: 1 − lost/removed, the ratio of means at the component of which most is restored, chosen on one half "
        f"of the prompts and measured on the other{pooled}. Intervals: bootstrap over prompts, "
        f"{comparison.bootstrap.resamples:,} resamples; of what is restored "
        f"{percent(comparison.rows[0].verdict.confidence)}, of differences {percent(comparison.bootstrap.confidence)}, "
        "paired where the prompts are the same."
    )
    return Group(table, Text(""), Text("\n".join(notes), style="dim"))
