"""Shapes of a picture, without colours; SVG, page and matplotlib draw them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

#: A step of a path: a letter of SVG (M, L, C or Z) and its absolute coordinates.
Step = tuple[str, *tuple[float, ...]]
Point = tuple[float, float]

#: The share of the radius at which a Bézier curve has its handles, for a quarter of a circle.
_HANDLE = 0.5523


@dataclass(frozen=True)
class Shape:
    """A path with the role that decides its fill and stroke.

    Attributes:
        role: a key of `colours.LOOKS`.
        steps: the path.
        about: text on hover; empty if there is none.
        component: the label of the component that it belongs to; empty if it belongs to none.
        fade: the points between which the band's colour gives way to the shape's own; None without.
    """

    role: str
    steps: tuple[Step, ...]
    about: str = ""
    component: str = ""
    fade: tuple[Point, Point] | None = None


@dataclass(frozen=True)
class Text:
    """A line of text in parts.

    Attributes:
        x: the place of its anchor.
        y: its base line.
        parts: texts with their role: `ink`, `soft`, `faint`, `bold`, `hit`, `on_band`.
        size: the font size.
        anchor: `start`, `middle` or `end`.
        room: the width that it may take.
    """

    x: float
    y: float
    parts: tuple[tuple[str, str], ...]
    size: float
    anchor: str = "start"
    room: float = float("inf")

    @property
    def words(self) -> str:
        """The text without roles."""
        return "".join(text for text, _ in self.parts)


@dataclass(frozen=True)
class Picture:
    """A picture in pixels.

    Attributes:
        name: the name of the layout.
        width: its width.
        top: its upper edge, above 0 if the heading is left out.
        bottom: its lower edge.
        title: one sentence, for titles of documents.
        description: all numbers, for those who can't see it.
        shapes: the paths, from back to front.
        texts: the texts of the picture itself.
        heading: the title and the line below it.
        source: the lines that say where the numbers come from.
        stroke: the factor of all strokes.
        band: the scale of band and branches, in pixels a unit; 0 if nothing flows.
        bar: the scale of bars, likewise.
    """

    name: str
    width: float
    top: float
    bottom: float
    title: str
    description: str
    shapes: tuple[Shape, ...]
    texts: tuple[Text, ...]
    heading: tuple[Text, ...]
    source: tuple[Text, ...]
    stroke: float = 1.0
    band: float = 0.0
    bar: float = 0.0

    @property
    def bare(self) -> "Picture":
        """The picture without heading and source, for pages that have their own."""
        body = [text.y - text.size for text in self.texts] + [
            y for shape in self.shapes for step in shape.steps for _, y in points_of(step)
        ]
        low = [text.y + 0.4 * text.size for text in self.texts]
        return replace(
            self, heading=(), source=(), top=max(self.top, min(body) - 6), bottom=min(self.bottom, max(low) + 4)
        )

    @property
    def all_texts(self) -> tuple[Text, ...]:
        """Heading, texts and source."""
        return (*self.heading, *self.texts, *self.source)


def points_of(step: Step) -> list[Point]:
    """Return the points of a step, handles among them."""
    _, *values = step
    return list(zip(values[::2], values[1::2], strict=True))


def rectangle(x: float, y: float, width: float, height: float) -> tuple[Step, ...]:
    """Return a closed rectangle."""
    return (("M", x, y), ("L", x + width, y), ("L", x + width, y + height), ("L", x, y + height), ("Z",))


def line(*points: Point) -> tuple[Step, ...]:
    """Return an open path through points."""
    return (("M", *points[0]), *(("L", *point) for point in points[1:]))


def polygon(points: Sequence[Point]) -> tuple[Step, ...]:
    """Return a closed path through points."""
    return (*line(*points), ("Z",))


def lines(many: Iterable[Sequence[Point]]) -> tuple[Step, ...]:
    """Return one open path of several lines."""
    return tuple(step for points in many for step in line(*points))


def turn(start: Point, end: Point, *, upright: bool) -> Step:
    """Return a quarter turn from `start` to `end`; `upright`: it starts vertically."""
    (x0, y0), (x1, y1) = start, end
    dx, dy = (x1 - x0) * _HANDLE, (y1 - y0) * _HANDLE
    if upright:
        return ("C", x0, y0 + dy, x1 - dx, y1, x1, y1)
    return ("C", x0 + dx, y0, x1, y1 - dy, x1, y1)
