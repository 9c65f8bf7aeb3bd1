"""The ledger of an ablation as two bars of equal length."""

from collections.abc import Iterator
from html import escape

from hydrascope.reports.flow import RepairFlow
from hydrascope.reports.flow.words import digits
from hydrascope.reports.summary.interval import Interval, format_interval, number

_WIDTH, _HEIGHT = 340, 27
#: The width of a letter of the label.
_LETTER = 7.2


#: The pattern of what makes it worse; a page needs it once.
PATTERN = (
    '<defs><pattern id="worse-stripes" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect class="ground" width="6" height="6"/><rect class="stripe" width="2" '
    'height="6"/></pattern></defs>'
)


def ledger_bars(flow: RepairFlow, longest: float | None = None, defs: str = PATTERN) -> str:
    """Return both bars and their key as HTML.

    The upper bar is what is removed, and parts below 0, which add to what is missing. The lower bar is what became of
    it. Both are as long: removed = attention + MLPs + norm + lost.

    Args:
        flow: the numbers of one ablation.
        longest: the amount that is as long as the picture is wide; by default `ledger_length`.
        defs: the pattern that the bars use; empty if the page has it already.
    """
    parts, whole = _parts(flow), ledger_length(flow)
    worse = [(name, role, value) for name, role, value in parts if value.estimate < 0]
    if not whole > 0:
        return ""
    upper = [("removed", flow.removed.estimate), *((_below_0(role), -value.estimate) for _, role, value in worse)]
    lower = [(role, value.estimate) for _, role, value in parts if value.estimate > 0]
    scale = _WIDTH / (longest or whole)
    amount = digits(flow)
    said = f"{number(flow.removed.estimate, amount)} {escape(flow.source.unit)} removed"
    # A label longer than its piece stands behind the bar, if there is room.
    wide, end = _LETTER * len(said), whole * scale
    behind = flow.removed.estimate * scale < 6 + wide and end + 6 + wide < _WIDTH
    label = f'<text x="{end + 6 if behind else 6:g}" y="18">{said}</text>'
    bars = (
        f'<svg class="ledger" viewBox="0 0 {_WIDTH} {2 * _HEIGHT + 4}" role="img" aria-label="{escape(_told(flow))}">'
        f"{defs}{''.join(_bar(upper, 0, scale))}{label}"
        f"{''.join(_bar(lower, _HEIGHT + 4, scale))}</svg>"
    )
    return f'{bars}<ul class="ledger-key">{"".join(_key(flow))}</ul>'


def ledger_length(flow: RepairFlow) -> float:
    """Return the amount that either bar shows: what is removed, and parts below 0."""
    return flow.removed.estimate + sum(max(-value.estimate, 0.0) for _, _, value in _parts(flow))


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


def _below_0(role: str) -> str:
    """Return the role of a part below 0: more is missing, or, of what is lost, the answer gains."""
    return "gained" if role == "lost" else "worse"


def _key(flow: RepairFlow) -> Iterator[str]:
    for name, role, value in _parts(flow):
        unsure = value.low <= 0 <= value.high
        below = ": the answer gains" if role == "lost" else ": more is missing"
        told = ": not surely other than 0" if unsure else (below if value.estimate < 0 else "")
        role = role if value.estimate > 0 else _below_0(role)
        yield (
            f'<li><svg viewBox="0 0 12 12" aria-hidden="true"><rect class="part {role}" width="12" height="12"/></svg>'
            f"{name} {format_interval(value, digits(flow))}{told}</li>"
        )


def _told(flow: RepairFlow) -> str:
    amount = digits(flow)
    parts = ", ".join(f"{name} {number(value.estimate, amount)}" for name, _, value in _parts(flow))
    return f"Removed {number(flow.removed.estimate, amount)} {flow.source.unit}: {parts}"
