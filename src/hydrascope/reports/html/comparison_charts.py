"""The pictures of a comparison: shares restored over depth, and a matrix of differences."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape

import numpy as np
import xarray as xr

from hydrascope.reports.colour_scale import ColourScale, scale_of
from hydrascope.reports.summary.interval import Interval, format_interval, number
from hydrascope.reports.summary.tick_text import tick_text

#: The shares restored that a profile shows; others are triangles at its edge, with their value.
LOWEST, HIGHEST = -1.0, 2.0
#: The most results: more can't be told apart by colour and shape.
MOST_RESULTS = 6
_WIDTH, _HEIGHT = 420, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 12, 12, 34
#: The width of a number at an edge.
_NUMBER = 36
_SIDE, _MARGIN = 720, 62
#: The number of colours on either side of 0.
_STEPS = 5
#: Above this number of cells, a cell has no text of its own.
_MOST_TEXTS = 20_000


def marker(index: int, x: float, y: float, *, hollow: bool = False, size: float = 4.5) -> str:
    """Return the marker of a result as SVG: a shape and a colour of its own.

    Args:
        index: the number of the result.
        x: the centre, in pixels.
        y: the centre, in pixels.
        hollow: whether the marker is an outline.
        size: the radius in pixels.
    """
    r = size
    shapes = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}"',
        f'<rect x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r}" height="{2 * r}"',
        f'<path d="M{x:.1f} {y - r:.1f}l{r} {2 * r}h{-2 * r}z"',
        f'<path d="M{x:.1f} {y - 1.3 * r:.1f}l{1.3 * r} {1.3 * r}l{-1.3 * r} {1.3 * r}l{-1.3 * r} {-1.3 * r}z"',
        f'<path d="M{x - r:.1f} {y - r:.1f}h{2 * r}l{-r} {2 * r}z"',
        f'<path d="M{x - 1.3 * r:.1f} {y:.1f}h{2.6 * r}M{x:.1f} {y - 1.3 * r:.1f}v{2.6 * r}" stroke-width="2.4"',
    )
    return f'{shapes[index]} class="s{index}{" open" if hollow else ""}"/>'


def profile(curves: Mapping[str, xr.DataArray], names: Sequence[str], told: str) -> str:
    """Return the shares restored [bound, ablated] over relative depth as SVG.

    Args:
        curves: by name of the result, with the coordinate `relative_depth`.
        names: the names of all results, in the order of their markers.
        told: the picture in words.
    """
    parts, edges = [_axes()], _Edges()
    for name, shares in curves.items():
        index = names.index(name)
        for place, label in enumerate(shares["ablated"].values):
            value = Interval.of(shares.isel(ablated=place))
            x = _across(float(shares["relative_depth"][place])) + 3 * (index - (len(names) - 1) / 2)
            said = f"<title>{escape(f'{name}, {label}: {format_interval(value, 2)}')}</title>"
            parts.append(f"<g>{said}{_point(index, x, value, edges)}</g>")
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(told)}">{"".join(parts)}</svg>'


class _Edges:
    """The numbers written at the edges so far, so that no two touch."""

    def __init__(self) -> None:
        self.taken: list[tuple[bool, int, float]] = []

    def row(self, above: bool, x: float) -> int:
        """Return the first free row from the edge for a number at `x`."""
        row = 0
        while any(side == above and each == row and abs(x - other) < _NUMBER for side, each, other in self.taken):
            row += 1
        self.taken.append((above, row, x))
        return row


def _point(index: int, x: float, value: Interval, edges: _Edges) -> str:
    y = _up(value.estimate)
    if not LOWEST <= value.estimate <= HIGHEST:
        above = value.estimate > HIGHEST
        edge, turn = (_TOP, 1) if above else (_HEIGHT - _BOTTOM, -1)
        tip = f'<path d="M{x:.1f} {edge}l4 {7 * turn}h-8z" class="s{index}"/>'
        row = edges.row(above, x)
        text = f'<text x="{x + 6:.1f}" y="{edge + (9 + 11 * row if above else -2 - 11 * row)}" class="s{index}">'
        return f"{tip}{text}{number(value.estimate, 1)}</text>"
    bounded = np.isfinite(value.low)
    low, high = (_up(float(np.clip(each, LOWEST, HIGHEST))) for each in (value.low, value.high)) if bounded else (y, y)
    line = f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" class="s{index}" stroke-width="1.4"/>'
    return (line if bounded else "") + marker(index, x, y, hollow=not bounded)


def _axes() -> str:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    lines = [f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>']
    for share, said in ((0, "none"), (1, "all restored")):
        y = _up(share)
        lines.append(f'<line class="all" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text class="tick" x="{right}" y="{y - 3:.1f}" text-anchor="end">{said}</text>')
    for share in (-1, 0, 1, 2):
        lines.append(
            f'<text class="tick" x="{_LEFT - 6}" y="{_up(share) + 4:.1f}" text-anchor="end">{number(share, 0)}</text>'
        )
    for place in (0, 0.5, 1):
        x = _across(place)
        lines.append(f'<text class="tick" x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{place:g}</text>')
    middle = (_LEFT + right) / 2
    lines.append(
        f'<text class="tick" x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">relative depth of the ablated '
        "component</text>"
    )
    return "".join(lines)


def _across(depth: float) -> float:
    return _LEFT + 12 + depth * (_WIDTH - _LEFT - _RIGHT - 24)


def _up(share: float) -> float:
    low, high = LOWEST - 0.1, HIGHEST + 0.1
    return _TOP + (high - share) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)


def has_texts(bounds: xr.DataArray) -> bool:
    """Whether each cell of a matrix [bound, ablated, component] has a text of its own."""
    return bounds.sizes["ablated"] * bounds.sizes["component"] <= _MOST_TEXTS


def difference_matrix(bounds: xr.DataArray, unit: str, name: str, told: str) -> str:
    """Return a matrix of differences as SVG, the first row at the bottom.

    Blue is above 0, orange below; a dot is on what is surely not 0. Cells without a value are empty.

    Args:
        bounds: estimates with bounds, [bound, ablated, component].
        unit: the unit of all values.
        name: the name of the picture, which no other on the page has.
        told: the picture in words.
    """
    estimate, low, high = bounds.transpose("bound", "ablated", "component").values
    rows, columns = (list(map(str, bounds[dim].values)) for dim in ("ablated", "component"))
    scale, sure, with_texts = scale_of(estimate), (low > 0) | (high < 0), has_texts(bounds)
    cell = (_SIDE - _MARGIN) / max(len(rows), len(columns))
    width, height = _MARGIN + cell * len(columns) + 2, _MARGIN + cell * len(rows) + 2
    parts = []
    for row, column in zip(*np.nonzero(np.isfinite(estimate)), strict=True):
        x, y = _MARGIN + column * cell, (len(rows) - 1 - row) * cell + 2
        value = Interval(*(float(each[row, column]) for each in (estimate, low, high)))
        said = f"{rows[row]} ablated, {columns[column]}: {format_interval(value, 3)} {unit}"
        title = f"<title>{escape(said)}</title>" if with_texts else ""
        place = f'x="{x:.1f}" y="{y:.1f}" width="{cell:.2f}" height="{cell:.2f}"'
        square = f'<rect class="{shade(value.estimate, scale)}" {place}/>'
        dot = f'<circle class="sure" cx="{x + cell / 2:.1f}" cy="{y + cell / 2:.1f}" r="{0.16 * cell:.2f}"/>'
        parts.append(f"<g>{title}{square}{dot if sure[row, column] else ''}</g>")
    parts += _labels(rows, columns, cell, height)
    return (
        f'<div class="cells scroll" tabindex="0" role="region" aria-label="{escape(name)}">'
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(told)}">{"".join(parts)}</svg>'
        f"</div>{_key(scale, unit)}"
    )


def shade(value: float, scale: ColourScale) -> str:
    """Return the class of a value's colour: `a1` to `a5` above 0, `w1` to `w5` below."""
    share = np.arcsinh(abs(value) / scale.linear) / np.arcsinh(scale.most / scale.linear)
    if share < 0.5 / _STEPS:
        return "zero-cell"
    return f"{'a' if value > 0 else 'w'}{min(int(np.ceil(share * _STEPS)), _STEPS)}"


def _labels(rows: list[str], columns: list[str], cell: float, height: float) -> Iterator[str]:
    apart = max(1, int(np.ceil(13 / cell)))
    for index in range(0, len(rows), apart):
        y = (len(rows) - 1 - index + 0.5) * cell + 6
        yield f'<text class="tick" x="{_MARGIN - 5}" y="{y:.1f}" text-anchor="end">{escape(rows[index])}</text>'
    for index in range(0, len(columns), apart):
        x = _MARGIN + (index + 0.5) * cell + 4
        y = height - _MARGIN + 5
        yield (
            f'<text class="tick" transform="translate({x:.1f} {y:.1f}) rotate(-90)" text-anchor="end">'
            f"{escape(columns[index])}</text>"
        )


def _key(scale: ColourScale, unit: str) -> str:
    """Return the colours with the largest value on either side."""
    items = []
    for sign, letter, word in ((1, "a", "more"), (-1, "w", "less")):
        squares = "".join(
            f'<rect class="{letter}{step + 1}" x="{14 * step}" width="14" height="12"/>' for step in range(_STEPS)
        )
        svg = f'<svg class="ramp" viewBox="0 0 70 12" aria-hidden="true">{squares}</svg>'
        items.append(f"<li>{svg}{word}, up to {tick_text(sign * scale.most)} {escape(unit)}</li>")
    dot = '<svg class="mark" viewBox="0 0 12 12" aria-hidden="true"><circle class="sure" cx="6" cy="6" r="4"/></svg>'
    return f'<ul class="key">{"".join(items)}<li>{dot}surely not 0</li></ul>'


def largest(bounds: xr.DataArray, count: int) -> list[tuple[str, str, Interval]]:
    """Return the largest sure differences: ablated, component, and the value with its bounds."""
    estimate, low, high = bounds.transpose("bound", "ablated", "component").values
    sure = np.where((low > 0) | (high < 0), abs(estimate), -np.inf)
    order = np.argsort(-sure, axis=None)[:count]
    places = [np.unravel_index(each, sure.shape) for each in order]
    return [
        (
            str(bounds["ablated"].values[row]),
            str(bounds["component"].values[column]),
            Interval(float(estimate[row, column]), float(low[row, column]), float(high[row, column])),
        )
        for row, column in places
        if np.isfinite(sure[row, column])
    ]
