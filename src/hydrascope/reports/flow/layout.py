"""The three layouts of the repair flow, in pixels, and the estimated width of text."""

from dataclasses import dataclass

#: Widths of characters, in sizes of the font: of DejaVu Sans, the widest of the common sans-serif fonts.
_WIDTHS = {
    **dict.fromkeys("iIl|.,:;!'·", 0.32),
    **dict.fromkeys("jtfr()[]- ", 0.38),
    **dict.fromkeys("mMwW%−", 0.9),
}
_DIGIT, _CAPITAL, _OTHER = 0.636, 0.69, 0.61
_BOLD = 1.11


@dataclass(frozen=True)
class Layout:
    """Places and sizes of one layout, in pixels from the top left.

    Attributes:
        name: `slide`, `page` or `phone`.
        full: whether labels are sentences; on a phone they are short.
        width: the width of the canvas.
        height: its height.
        top: the upper end of the blocks' room.
        bottom: its lower end.
        left: the left edge of texts.
        axis: the place of the blocks' numbers.
        attn: the column of attention.
        stream: the column of the band.
        mlp: the column of MLPs.
        labels: the left edge of the MLPs' labels.
        title: the font size of the title; likewise `deck`, `label`, `note`, `tick` and `source`.
        quiet: the least and the largest height of a row without a label.
        band: the least and the largest width of what is removed.
        row: the least height of a row with a label at the right.
        row_left: the same at the left.
        pad: the room beside a branch.
        inner: the inner radius of turns.
        bar: the thickness of bars with a label.
        lost: the room above the norm.
        norm: the room of the norm beside its branch.
        stroke: the factor of all strokes.
    """

    name: str
    full: bool
    width: float
    height: float
    top: float
    bottom: float
    left: float
    axis: float
    attn: tuple[float, float]
    stream: tuple[float, float]
    mlp: tuple[float, float]
    labels: float
    title: float
    deck: float
    label: float
    note: float
    tick: float
    source: float
    quiet: tuple[float, float]
    band: tuple[float, float]
    row: float
    row_left: float
    pad: float
    inner: float
    bar: float
    lost: float
    norm: float
    stroke: float

    @property
    def em(self) -> float:
        """The size of labels, compared with that on a slide."""
        return self.label / 22

    def measure(self, text: str, size: float, *, bold: bool = False) -> float:
        """Return the estimated width of a text, in pixels."""
        units = sum(_WIDTHS.get(char) or _width(char) for char in text)
        return units * size * (_BOLD if bold else 1)


def _width(char: str) -> float:
    if char.isdigit():
        return _DIGIT
    if ord(char) >= 0x2E80:  # East Asian scripts and pictures are as wide as high
        return 1.05
    return _CAPITAL if char.isupper() else _OTHER


SLIDE = Layout(
    name="slide",
    full=True,
    width=1600,
    height=900,
    top=100,
    bottom=742,
    left=40,
    axis=196,
    attn=(208, 424),
    stream=(424, 724),
    mlp=(724, 1084),
    labels=1104,
    title=36,
    deck=21,
    label=22,
    note=18,
    tick=16,
    source=13,
    quiet=(1.7, 9.0),
    band=(70, 160),
    row=56,
    row_left=66,
    pad=12,
    inner=12,
    bar=16,
    lost=54,
    norm=40,
    stroke=1,
)
PAGE = Layout(
    name="page",
    full=True,
    width=900,
    height=760,
    top=76,
    bottom=604,
    left=4,
    axis=116,
    attn=(126, 236),
    stream=(236, 396),
    mlp=(396, 592),
    labels=604,
    title=22,
    deck=14,
    label=14.5,
    note=12.5,
    tick=12,
    source=11,
    quiet=(1.5, 6.5),
    band=(60, 120),
    row=46,
    row_left=46,
    pad=10,
    inner=10,
    bar=12,
    lost=44,
    norm=34,
    stroke=0.85,
)
PHONE = Layout(
    name="phone",
    full=False,
    width=390,
    height=800,
    top=92,
    bottom=600,
    left=10,
    axis=24,
    attn=(30, 100),
    stream=(100, 186),
    mlp=(186, 286),
    labels=292,
    title=19,
    deck=12.5,
    label=13,
    note=11.5,
    tick=11,
    source=10.5,
    quiet=(1.3, 6.0),
    band=(44, 60),
    row=36,
    row_left=36,
    pad=8,
    inner=7,
    bar=9,
    lost=44,
    norm=34,
    stroke=0.65,
)

#: The layouts by name.
LAYOUTS = {each.name: each for each in (SLIDE, PAGE, PHONE)}
