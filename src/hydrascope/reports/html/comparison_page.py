"""The page that compares results: sentences, ledgers, shares over depth, differences."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from itertools import product

import numpy as np
import xarray as xr

from hydrascope.measures import Bootstrap, Effects, depth, per_prompt, response_difference, single_ablations
from hydrascope.measures.labels import in_order
from hydrascope.reports.flow.measured import chosen, flow_of
from hydrascope.reports.flow.repair import RepairFlow
from hydrascope.reports.flow.source import Source, in_one_line, source_of
from hydrascope.reports.flow.words import title, why_not
from hydrascope.reports.html.comparison_charts import (
    MOST_RESULTS,
    difference_matrix,
    has_texts,
    largest,
    marker,
    profile,
)
from hydrascope.reports.html.ledger_bars import PATTERN, ledger_bars, ledger_length
from hydrascope.reports.html.render import still_page
from hydrascope.reports.summary.comparison import Comparison, compare
from hydrascope.reports.summary.interval import format_interval, format_share, percent
from hydrascope.reports.summary.verdict_text import ASKED_NAME, POOLED_SHARES
from hydrascope.utils.errors import HydrascopeError

#: The differences that are told in words.
_TOLD = 6


@dataclass(frozen=True)
class _Shown:
    """One result on the page.

    Attributes:
        name: its name.
        effects: its effects.
        source: its run.
        flow: the ledger of the component that its summary chooses; None if it chooses none.
    """

    name: str
    effects: Effects
    source: Source
    flow: RepairFlow | None


def comparison_page(results: Mapping[str, xr.Dataset], bootstrap: Bootstrap) -> str:
    """Return a page that compares results with the first, as HTML without script.

    Args:
        results: two to six results, by name.
        bootstrap: the resampling that gives the intervals.

    Raises:
        HydrascopeError: as `hydrascope.reports.compare`, or there are more than six results.
    """
    if len(results) > MOST_RESULTS:
        raise HydrascopeError(f"a page compares at most {MOST_RESULTS} results: give fewer than {len(results)}")
    alone = {name: single_ablations(each) for name, each in results.items()}
    found = compare(alone, bootstrap)
    shown = [_read(name, each, bootstrap, found) for name, each in alone.items()]
    body = "".join(
        (
            _header(shown, found),
            "<main>",
            _section("what-comes-back", "What comes back, in each", _ledgers(shown)),
            _section("numbers", "The shares side by side", _table(found)),
            _section("profiles", "Share restored over depth", _profiles(shown, found)),
            *_differences(shown, found, bootstrap),
            "</main>",
        )
    )
    return still_page(f"{' and '.join(results)} · hydrascope", body)


def _read(name: str, results: xr.Dataset, bootstrap: Bootstrap, found: Comparison) -> _Shown:
    effects = per_prompt(results)
    verdicts = [row.verdict for row in found.rows if row.name == name]
    flow = flow_of(results, effects, None, None, bootstrap, verdicts) if chosen(verdicts) else None
    return _Shown(name, effects, source_of(effects), flow)


def _section(name: str, heading: str, content: str) -> str:
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{escape(heading)}</h2>{content}</section>'


def _header(shown: list[_Shown], found: Comparison) -> str:
    named = " and ".join(each.name for each in shown)
    notes = "".join(f"<li>{escape(_sentence(warning))}</li>" for warning in found.warnings)
    pairing = "; ".join(
        f"{name} has {'the same' if same else 'other'} prompts {'as' if same else 'than'} {shown[0].name}"
        for name, same in found.paired.items()
    )
    return (
        f'<header><h1><span class="brand">hydrascope compares</span> {escape(named)}</h1>'
        f"<p>{escape(pairing)}. All intervals are by resampling the prompts, "
        f"{found.bootstrap.resamples:,} times.</p>{f'<ul class=notes>{notes}</ul>' if notes else ''}</header>"
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _scale_in_words(units: set[str]) -> str:
    several = "The units differ, so that each pair of bars has its own scale."
    return f'<p class="keys">{"All bars have one scale." if len(units) == 1 else several}</p>'


def _ledgers(shown: list[_Shown]) -> str:
    """Return a sentence and bars for each result; bars of one unit have one scale."""
    units = {each.source.unit for each in shown}
    lengths = [ledger_length(each.flow) for each in shown if each.flow is not None and not why_not(each.flow)]
    longest = max(lengths, default=None) if len(units) == 1 else None
    # Of a single pair of bars nothing is to be compared.
    told = _scale_in_words(units) if len(lengths) > 1 else ""
    parts, defs = [], PATTERN
    for index, each in enumerate(shown):
        words = f'<h3>{_mark(index)}{escape(each.name)}</h3><p class="finding">{escape(_finding(each))}</p>'
        bars = ""
        if each.flow is not None and not why_not(each.flow):
            bars, defs = ledger_bars(each.flow, longest, defs), ""
        parts.append(
            f'<div class="result"><div>{words}<p>{escape(in_one_line(each.source))}</p></div><div>{bars}</div></div>'
        )
    return f'{told}<div class="results">{"".join(parts)}</div>'


def _mark(index: int) -> str:
    return f'<svg class="mark" viewBox="0 0 14 14" aria-hidden="true">{marker(index, 7, 7, size=5)}</svg>'


def _finding(each: _Shown) -> str:
    """Return the finding of a result as a sentence, with the number that the bars show."""
    flow = each.flow
    if flow is None:
        return "No component is chosen: none removes enough, or the prompts are too few."
    if why_not(flow):
        return why_not(flow)
    held = ""
    if np.isfinite(flow.held_out.estimate):
        whole = format_share(flow.share)
        held = f" Chosen on one half of the prompts, measured on the other; on all prompts, as in the bars, {whole}."
    rival = f" Half of the prompts chose {flow.rival}." if flow.rival else ""
    return f"{' '.join(title(flow))}.{held}{rival}"


def _table(found: Comparison) -> str:
    head = ("Result", "Ablated", "Comes back?", "At", "Share restored", "Less the first’s")
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in _cells(found, index))}</tr>"
        for index in range(len(found.rows))
    )
    levels = sorted({percent(row.verdict.confidence) for row in found.rows})
    pooled = f"; {POOLED_SHARES}" if any(row.verdict.pooled for row in found.rows) else ""
    about = (
        "1 − lost/removed at the component of which most is restored, chosen on one half of the prompts and measured "
        f"on the other{pooled}. Intervals of shares: {' or '.join(levels)}; of differences: "
        f"{percent(found.bootstrap.confidence)}, paired where the prompts are the same."
    )
    top = "".join(f'<th scope="col">{each}</th>' for each in head)
    return (
        f'<p class="keys">{about}</p><div class="scroll" tabindex="0" role="region" aria-label="Shares">'
        f'<table class="numbers"><thead><tr>{top}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _cells(found: Comparison, index: int) -> tuple[str, ...]:
    row = found.rows[index]
    return (
        row.name,
        ASKED_NAME[row.verdict.kind],
        row.verdict.answer,
        row.verdict.component or "–",
        format_share(row.verdict.restored.if_bounded),
        format_interval(row.restored, 2),
    )


def _profiles(shown: list[_Shown], found: Comparison) -> str:
    names = [each.name for each in shown]
    figures = []
    for kind in dict.fromkeys(kind for _, kind in found.over_depth):
        curves = {name: found.over_depth[name, kind] for name in names if (name, kind) in found.over_depth}
        count = ", ".join(f"{name} {each.sizes['ablated']}" for name, each in curves.items())
        told = f"{ASKED_NAME[kind]} ablated: share restored over relative depth. Components: {count}"
        heading = f"<figcaption><h3>{ASKED_NAME[kind]} ablated</h3></figcaption>"
        figures.append(f"<figure>{heading}{profile(curves, names, told)}</figure>")
    key = "".join(f"<li>{_mark(index)}{escape(name)}</li>" for index, name in enumerate(names))
    about = (
        "A marker is a component that removes more than 1% of the readout; depth runs from the first block, 0, to the "
        "last, 1. Hollow markers have no bounds, since the ablation may remove nothing. Triangles at the edge are "
        "shares beyond, with their value. Point at a marker for its numbers."
    )
    return f'<ul class="key">{key}</ul><div class="profiles">{"".join(figures)}</div><p class="keys">{about}</p>'


def _differences(shown: list[_Shown], found: Comparison, bootstrap: Bootstrap) -> Iterator[str]:
    """Yield a section for each later result: the differences, or why there are none."""
    first, *others = shown
    for number, other in enumerate(others):
        heading = f"Responses: {other.name} less {first.name}"
        yield _section(
            f"difference-{number}", heading, _difference(first, other, bootstrap, paired=found.paired[other.name])
        )


def _difference(first: _Shown, second: _Shown, bootstrap: Bootstrap, *, paired: bool) -> str:
    why = _incomparable(first, second)
    if why:
        return f'<p class="keys">{escape(why)}</p>'
    before, after = _common(first, second), _common(second, first)
    bounds = response_difference(before, after, bootstrap, paired=paired)
    unit, sure = first.source.unit, largest(bounds, _TOLD)
    counted = int(((bounds.sel(bound="low") > 0) | (bounds.sel(bound="high") < 0)).sum())
    cells = int(bounds.sel(bound="estimate").notnull().sum())
    how = (
        "The prompts are the same, and are resampled together."
        if paired
        else "The prompts differ, so that each result is resampled alone: the bounds are wider."
    )
    told = f"Differences of {cells:,} mean responses; {counted:,} are surely not 0"
    name = f"Matrix: {second.name} less {first.name}"
    listed = "".join(
        f"<li>{escape(component)} after {escape(ablated)}: {format_interval(value, 2)} {escape(unit)}</li>"
        for ablated, component, value in sure
    )
    several = f"<p>The largest sure differences:</p><ol>{listed}</ol>" if listed else "<p>No difference is sure.</p>"
    left_out = _left_out(first, second, before)
    point = " Point at a cell for its numbers." if has_texts(bounds) else ""
    return (
        f'<div class="matrix-of"><div>{difference_matrix(bounds, unit, name, told)}</div><div>'
        f"<p>Rows: ablated; columns: responding. A cell is the mean response ΔDE in {escape(second.name)} less that in "
        f"{escape(first.name)}: blue writes more, orange less. A dot is on what is surely not 0, by "
        f"{percent(bootstrap.confidence)} bounds that hold for all cells at once: {counted:,} of {cells:,}. {how}"
        f"{escape(left_out)}{point}</p>{several}</div></div>"
    )


def _incomparable(first: _Shown, second: _Shown) -> str:
    """Return why two results have no matrix of differences; empty if they have one."""
    if depth(first.effects) != depth(second.effects):
        blocks = f"{depth(first.effects)} and {depth(second.effects)}"
        return (
            f"There is no matrix: the networks have {blocks} blocks, so that a component of one isn’t one of the other."
        )
    if first.source.unit != second.source.unit:
        return f"There is no matrix: the units differ ({first.source.unit} and {second.source.unit})."
    if first.source.readout != second.source.readout:
        return f"There is no matrix: the readouts differ ({first.source.readout} and {second.source.readout})."
    for dim in ("ablated", "component"):
        if not set(first.effects[dim].values.tolist()) & set(second.effects[dim].values.tolist()):
            return f"There is no matrix: no {dim} component is in both results."
    return ""


def _common(one: _Shown, other: _Shown) -> Effects:
    """Return one's effects of the components that both have, in the network's order."""
    effects = one.effects
    for dim in ("ablated", "component"):
        labels = [str(label) for label in effects[dim].values]
        both = set(labels) & set(map(str, other.effects[dim].values))
        ordered = [labels[index] for index in in_order(labels)]
        effects = effects.sel({dim: [label for label in ordered if label in both]})
    return effects


def _left_out(first: _Shown, second: _Shown, common: Effects) -> str:
    sizes = [each.effects.sizes[dim] for each, dim in product((first, second), ("ablated", "component"))]
    kept = [common.sizes[dim] for dim in ("ablated", "component")]
    return "" if sizes == [*kept, *kept] else " Components that only one result has are left out."
