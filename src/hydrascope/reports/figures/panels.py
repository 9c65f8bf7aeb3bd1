"""Elements of figures: axes along depth, faint lines, clouds of points, printable text."""

from collections.abc import Sequence
from functools import lru_cache
from textwrap import fill

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import MaxNLocator

from hydrascope.measures import Effects, EffectsOnly, SublayerKind, block_numbers, kinds, sublayer_labels
from hydrascope.reports.figures import style
from hydrascope.reports.flow.source import Source, in_one_line, source_of
from hydrascope.utils.errors import HydrascopeError

KINDS: tuple[SublayerKind, SublayerKind] = ("attn", "mlp")
COLOUR: dict[SublayerKind, str] = {"attn": style.ATTENTION, "mlp": style.MLP}
#: The fewest prompts over which a regression means anything.
FEWEST_TO_REGRESS = 3
#: What a panel without a regression says.
NO_REGRESSION = f"a regression needs\n{FEWEST_TO_REGRESS} prompts or more"
#: The size of the line that names a run, its most letters an inch, and its most letters.
_SMALL, _LETTERS, _LONGEST_ORIGIN = 5.5, 22, 300

NAME: dict[SublayerKind, str] = {"attn": "Attention", "mlp": "MLP"}


def ablated_blocks(effects: Effects) -> Effects:
    """Return the effects of ablated sublayers, without heads, neurons and joint ablations.

    Raises:
        HydrascopeError: no sublayer was ablated.
    """
    chosen = sublayer_labels(effects["ablated"])
    if not chosen:
        raise HydrascopeError(
            "figures 2, 7 and 8 show ablated sublayers, and this run ablated none: ablate layers, too"
        )
    return effects.isel(ablated=chosen)


def can_regress(effects: Effects) -> bool:
    """Whether there are enough prompts for a regression: a line goes through any two points."""
    return effects.sizes["prompt"] >= FEWEST_TO_REGRESS


def ablated_kinds(effects: Effects) -> list[SublayerKind]:
    """Return the kinds of sublayers that were ablated, attention first."""
    return [kind for kind in KINDS if kind in kinds(effects["ablated"])]


def name_reading(figure: Figure, effects: EffectsOnly) -> None:
    """Write above the panels which run they show, the readout, and the reading of σ."""
    name_run(figure, source_of(effects))


def name_run(figure: Figure, source: Source) -> None:
    """Write above the panels which run they show."""
    line = printable(in_one_line(source), _LONGEST_ORIGIN)
    width = int(_LETTERS * figure.get_figwidth())
    figure.suptitle(fill(line, width), fontsize=_SMALL, color=style.DIM)


def printable(text: str, limit: int = 80) -> str:
    """Return `text` as one line of at most `limit` characters that the figures' font can draw.

    The middle of a longer text is left out. A line break becomes ⏎, a character that the font lacks becomes □.
    """
    glyphs = _glyphs()
    lines = text.replace("\r\n", "\n").replace("\n", "⏎").replace("\t", " ")
    safe = "".join(char if ord(char) in glyphs and char.isprintable() else "□" for char in lines)
    if len(safe) <= limit:
        return safe
    tail = limit // 3
    return f"{safe[: limit - tail - 1].rstrip()}…{safe[-tail:].lstrip()}"


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    """Return the code points that the figures' font has."""
    with style.style():
        return frozenset(get_font(findfont(FontProperties())).get_charmap())


def panel_letter(axes: Axes, letter: str, title: str = "") -> None:
    """Write a bold letter left of the panel's title."""
    axes.set_title(title, loc="center")
    axes.set_title(letter, loc="left", fontweight="bold")


def block_axis(axes: Axes, depth: int, label: str = "Block") -> None:
    """Set the horizontal axis of a network of `depth` blocks, with whole numbers."""
    margin = 0.02 * depth + 0.3
    axes.set_xlim(-margin, depth - 1 + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    axes.set_xlabel(label)


def zero_line(axes: Axes) -> None:
    """Draw the horizontal line at 0."""
    axes.axhline(0, color=style.GREY, linewidth=0.5, zorder=0)


def faint_lines(
    axes: Axes, x: Sequence[int] | np.ndarray, lines: np.ndarray, colour: str, alpha: float | None = None
) -> None:
    """Draw many `lines` [line, x], fainter the more there are, as pixels to keep files small."""
    alpha = alpha or float(np.clip(20 / len(lines), 0.05, 0.5))
    points = np.stack([np.broadcast_to(x, lines.shape), lines], axis=-1)
    axes.add_collection(
        LineCollection(list(points), colors=colour, alpha=alpha, linewidths=0.5, rasterized=True, zorder=1)
    )
    axes.autoscale_view()


def band(axes: Axes, x: Sequence[int] | np.ndarray, bounds: xr.DataArray, colour: str) -> None:
    """Draw a confidence interval [bound, x] around a line."""
    low, high = bounds.sel(bound="low").values, bounds.sel(bound="high").values
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0, zorder=1)


def depth_scale(depth: int) -> ScalarMappable:
    """Return the colour scale of blocks 0 to `depth` − 1."""
    # The palest end of the map is too close to white.
    colours = mpl.colormaps[style.DEPTH_CMAP](np.linspace(0, 0.93, 256))
    return ScalarMappable(Normalize(0, max(depth - 1, 1)), mpl.colors.ListedColormap(colours))


def depth_bar(axes: Axes | Sequence[Axes], scale: ScalarMappable) -> None:
    """Draw the colour bar of `depth_scale` beside panels."""
    ticks = MaxNLocator(integer=True, nbins=8, min_n_ticks=1)
    panels = [axes] if isinstance(axes, Axes) else list(axes)
    panels[0].figure.colorbar(
        scale, ax=panels, label="Block of the ablated sublayer", aspect=25 * len(panels), pad=0.02, ticks=ticks
    )


def cloud(axes: Axes, x: xr.DataArray, y: xr.DataArray, scale: ScalarMappable, marker: str = "o") -> None:
    """Draw the points `x`, `y` [prompt, ablated], coloured by depth, as pixels.

    The order is random, so that no sublayer covers the others.
    """
    colours = np.broadcast_to(block_numbers(x["ablated"]), x.shape).ravel()
    order = np.random.default_rng(0).permutation(x.size)
    axes.scatter(
        x.values.ravel()[order],
        y.values.ravel()[order],
        c=scale.to_rgba(colours[order]),
        s=point_size(x.size),
        marker=marker,
        # Points are transparent, so that their density shows.
        alpha=float(np.clip(3000 / max(x.size, 1), 0.15, 0.6)),
        linewidths=0,
        rasterized=True,
        zorder=2,
    )
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))


def point_size(count: int) -> float:
    """Return a marker area in points² at which `count` points in one panel stay apart."""
    return float(np.clip(2500 / max(count, 1), 1.5, 9))


def absent(axes: Axes, message: str) -> None:
    """Write a message into a panel that has no data."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, message, ha="center", va="center", transform=axes.transAxes, color=style.GREY)
