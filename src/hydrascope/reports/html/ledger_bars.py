"""The ledger of an ablation as two bars of equal length."""

from collections.abc import Iterator
from html import escape

from hydrascope.reports.flow import RepairFlow
from hydrascope.reports.flow.words import digits
from hydrascope.reports.summary.interval import Interval, format_interval, number

_WIDTH, _HEIGHT = 340, 27


def ledger_bars(flow: RepairFlow) -> str:
    """Return both bars and their key as HTML.

    The upper bar is what is removed, and parts below 0, which add to what is missing. The lower bar is what became of
    it. Both are as long: removed = attention + MLPs + norm + lost.

    Args:
        flow: the numbers of one ablation.
    """
    parts = _parts(flow)
    worse = [(name, role, value) for name, role, value in parts if value.estimate < 0]
    whole = flow.removed.estimate + sum(-value.estimate for _, _, value in worse)
    if not whole > 0:
        return ""
    upper = [("removed", flow.removed.estimate), *(("worse", -value.estimate) for _, _, value in worse)]
    lower = [(role, value.estimate) for _, role, value in parts if value.estimate > 0]
    scale = _WIDTH / whole
    amount = digits(flow)
    label = f'<text x="6" y="18">{number(flow.removed.estimate, amount)} {escape(flow.source.unit)} removed</text>'
    bars = (
        f'<svg class="ledger" viewBox="0 0 {_WIDTH} {2 * _HEIGHT + 4}" role="img" aria-label="{escape(_told(flow))}">'
        '<defs><pattern id="worse-stripes" width="6" height="6" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><rect class="ground" width="6" height="6"/><rect class="stripe" width="2" '
        f'height="6"/></pattern></defs>{"".join(_bar(upper, 0, scale))}{label}'
        f"{''.join(_bar(lower, _HEIGHT + 4, scale))}</svg>"
    )
    return f'{bars}<ul class="ledger-key">{"".join(_key(flow))}</ul>'


def _parts(flow: RepairFlow) -> list[tuple[str, str, Interval]]:
    """Return name, role and amount of each part, the largest first and what is lost last."""
    made_up = [
        ("final norm", "norm", flow.norm),
        ("attention", "attention", flow.attention),
        ("MLPs", "mlps", flow.mlp),
    ]
    return [*sorted(made_up, key=lambda each: -each[2].estimate), ("lost", "lost", flow.lost)]


def _bar(segments: list[tuple[str, float]], y: float, scale: float) -> Iterator[str]:
    x = 0.0
    for role, value in segments:
        yield f'<rect class="part {role}" x="{x:.2f}" y="{y}" width="{value * scale:.2f}" height="{_HEIGHT}"/>'
        x += value * scale


def _key(flow: RepairFlow) -> Iterator[str]:
    for name, role, value in _parts(flow):
        unsure = value.low <= 0 <= value.high
        role = role if value.estimate > 0 else "worse"
        told = ": not surely other than 0" if unsure else (": more is missing" if value.estimate < 0 else "")
        yield (
            f'<li><svg viewBox="0 0 12 12" aria-hidden="true"><rect class="part {role}" width="12" height="12"/></svg>'
            f"{name} {format_interval(value, digits(flow))}{told}</li>"
        )


def _told(flow: RepairFlow) -> str:
    amount = digits(flow)
    parts = ", ".join(f"{name} {number(value.estimate, amount)}" for name, _, value in _parts(flow))
    return f"Removed {number(flow.removed.estimate, amount)} {flow.source.unit}: {parts}"
