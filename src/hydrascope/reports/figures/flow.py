"""The repair flow as a figure of matplotlib, and its files."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from matplotlib.textpath import text_to_path

from hydrascope.reports.figures import style
from hydrascope.reports.figures.origin import as_metadata
from hydrascope.reports.figures.panels import printable
from hydrascope.reports.flow.colours import INK, LIGHT, LOOKS, STRIPES
from hydrascope.reports.flow.geometry import BOLD, lay_out
from hydrascope.reports.flow.repair import RepairFlow
from hydrascope.reports.flow.shapes import Picture, Point, Shape, Text, points_of
from hydrascope.reports.flow.svg import as_svg
from hydrascope.reports.flow.words import about

#: Pixels of a picture to an inch of a figure.
_PER_INCH = 120
_CODES = {"M": [Outline.MOVETO], "L": [Outline.LINETO], "C": [Outline.CURVE4] * 3}


def figure_flow(flow: RepairFlow) -> Figure:
    """Draw the repair flow of one ablation, as on a slide.

        >>> from hydrascope.reports.flow import repair_flow
        >>> figure = figure_flow(repair_flow(results, "attn.3"))

    Args:
        flow: the numbers (`hydrascope.reports.flow.repair_flow`).
    """
    return _figure(lay_out(flow))


def save_flow(flow: RepairFlow, folder: Path, name: str = "flow") -> list[Path]:
    """Write the repair flow as PNG, PDF and SVG; every file says what it is of.

        >>> from hydrascope.reports.flow import repair_flow
        >>> paths = save_flow(repair_flow(results, "attn.3"), Path("figures"))

    Returns:
        The files written.

    Raises:
        HydrascopeError: the folder cannot be written.
    """
    picture, of = lay_out(flow), about(flow)
    return style.save(
        _figure(picture), folder, name, as_metadata(picture.title, of), {"svg": as_svg(picture, "light", of)}
    )


def _figure(picture: Picture) -> Figure:
    with style.style():
        size = picture.width / _PER_INCH, (picture.bottom - picture.top) / _PER_INCH
        figure = Figure(figsize=size, facecolor=LIGHT["paper"])
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, picture.width)
        axes.set_ylim(picture.bottom, picture.top)
        axes.set_axis_off()
        for shape in picture.shapes:
            _draw(axes, shape, picture.stroke)
        for text in picture.all_texts:
            _write(axes, text)
    return figure


def _outline(shape: Shape) -> Outline:
    vertices: list[Point] = []
    codes: list[Any] = []
    for step in shape.steps:
        if step[0] == "Z":
            vertices.append(vertices[0])
            codes.append(Outline.CLOSEPOLY)
            continue
        vertices += points_of(step)
        codes += _CODES[step[0]]
    return Outline(vertices, codes)


def _draw(axes: Axes, shape: Shape, factor: float) -> None:
    look, outline = LOOKS[shape.role], _outline(shape)
    points = 72 / _PER_INCH
    fill = LIGHT[look.fill] if look.fill else "none"
    patch = PathPatch(outline, facecolor=fill, edgecolor="none", linewidth=0, label=shape.component or "_")
    axes.add_patch(patch)
    if look.stripes:
        _stripe(axes, outline, patch, look.stripes, factor)
    if look.stroke:
        line = PathPatch(
            outline,
            facecolor="none",
            edgecolor=LIGHT[look.stroke],
            linewidth=look.width * factor * points,
            capstyle="butt",
            joinstyle="round",
        )
        if look.dash:
            line.set_linestyle((0, [each / (look.width * factor) for each in look.dash]))
        axes.add_patch(line)
    if shape.fade is not None:
        _fade(axes, outline, shape.fade)


def _stripe(axes: Axes, outline: Outline, patch: PathPatch, share: float, factor: float) -> None:
    """Draw stripes at 45° inside a patch, rising to the right as in SVG."""
    period, box = STRIPES * factor * 2**0.5, outline.get_extents()
    # A stripe is where x + y lies in the first `share` of a period.
    first, last = (box.x0 + box.y0) // period, (box.x1 + box.y1) // period
    stripes = []
    for number in np.arange(first, last + 1):
        low, high = number * period, (number + share) * period
        corners = [(low - box.y0, box.y0), (high - box.y0, box.y0), (high - box.y1, box.y1), (low - box.y1, box.y1)]
        stripes.append(Outline([*corners, corners[0]], closed=True))
    whole = Outline.make_compound_path(*stripes)
    drawn = axes.add_patch(PathPatch(whole, facecolor=LIGHT["fix"], edgecolor="none", linewidth=0))
    drawn.set_clip_path(patch)


def _fade(axes: Axes, outline: Outline, ends: tuple[Point, Point]) -> None:
    """Cover the start of a branch with the band's colour, which gives way to the branch's own."""
    (x0, y0), (x1, y1) = ends
    left, right = min(x0, x1) - 3, max(x0, x1) + 3
    low, high = max(y0, y1) + 3, min(y0, y1) - 3
    x, y = np.meshgrid(np.linspace(left, right, 200), np.linspace(high, low, 200))
    part = ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / ((x1 - x0) ** 2 + (y1 - y0) ** 2)
    alpha = np.clip((0.75 - part) / 0.7, 0, 1)
    limits = axes.get_xlim(), axes.get_ylim()
    image = np.empty((*alpha.shape, 4))
    image[..., :3], image[..., 3] = to_rgb(LIGHT["gap"]), alpha
    drawn = axes.imshow(image, extent=(left, right, low, high), aspect="auto", zorder=1, interpolation="bilinear")
    drawn.set_clip_path(PathPatch(outline, transform=axes.transData))
    axes.set_xlim(limits[0])
    axes.set_ylim(limits[1])


def _write(axes: Axes, text: Text) -> None:
    """Write a line of text, part by part; it shrinks where this font needs more room."""
    parts = [(printable(words, 200), role) for words, role in text.parts]
    wide = [_width(words, text.size, role) for words, role in parts]
    factor = min(1.0, text.room / sum(wide)) if any(wide) else 1.0
    x = text.x - {"start": 0.0, "middle": 0.5, "end": 1.0}[text.anchor] * factor * sum(wide)
    size = factor * text.size * 72 / _PER_INCH
    for (words, role), each in zip(parts, wide, strict=True):
        axes.text(x, text.y, words, fontsize=size, color=LIGHT[INK[role]], weight=_weight(role), va="baseline")
        x += factor * each


def _weight(role: str) -> str:
    return "bold" if role in BOLD else "normal"


def _width(words: str, size: float, role: str) -> float:
    """Return the width of a text in the font of figures, in the unit of `size`."""
    font = FontProperties(size=size, weight=_weight(role))
    wide, _, _ = text_to_path.get_text_width_height_descent(words, font, ismath=False)
    return float(wide)
