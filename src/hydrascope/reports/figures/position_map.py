"""The figure of a position map: the cost of ablating each component at each token."""

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import AsinhNorm, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from hydrascope.reports.colour_scale import COST, GAIN, ColourScale, map_scale
from hydrascope.reports.figures import style
from hydrascope.reports.figures.panels import name_run, printable
from hydrascope.reports.flow.source import source_of_analysis
from hydrascope.reports.summary.interval import number
from hydrascope.reports.summary.map_table import named_cells
from hydrascope.reports.summary.tick_text import tick_text

COLOURS = LinearSegmentedColormap.from_list("map", [*reversed(GAIN), *COST])
#: The titles of panels, and the colour of the dots on gains.
_TITLES = {"attn": "Attention", "mlp": "MLPs", "head": "Heads", "neuron": "Neurons", "feature": "Features"}
_DOT = "#0b3566"
#: The most letters of a token, and the most rows with a label.
_LETTERS, _LABELLED = 14, 60
#: Up to so many cells an inch, there are lines between them.
_CELLS_PER_INCH = 18


def figure_map(found: xr.Dataset) -> Figure:
    """Draw the cost of ablating each component at each token, a panel for each kind.

    Warm costs the answer; blue, with a dot from 0.3 logits, is where the answer gains. The scale is compressed,
    asinh(cost / 0.1), and nothing is clipped. The largest cells are labelled: overall, of each kind, beyond block 1,
    and the largest gain.

        >>> figure = figure_map(hs.analyses.position_map(model, "the fox is"))

    Args:
        found: the result of `hydrascope.analyses.position_map`.
    """
    cost = found["cost"].transpose("token", "component")
    kinds = list(dict.fromkeys(map(str, cost["component_kind"].values)))
    scale, unit = map_scale(cost.values, cost.attrs.get("units")), str(found.attrs.get("units", "logits"))
    tokens = cost.sizes["token"]
    with style.style():
        height = float(np.clip(1.5 + 0.15 * tokens, 2.4, 9.0))
        figure = Figure(figsize=(style.PAGE, height), layout="constrained")
        name_run(figure, source_of_analysis(found))
        panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
        # Lines between cells would hide small ones.
        small = max(cost.sizes["component"] / 5, tokens / height) > _CELLS_PER_INCH
        named = [(cell.token, cell.component) for cell in named_cells(found)]
        for axes, kind in zip(panels, kinds, strict=True):
            here = cost.isel(component=np.flatnonzero(cost["component_kind"].values == kind))
            _draw_panel(axes, here, scale, 0.0 if small else 0.4)
            axes.set_title(_TITLES.get(kind, kind), loc="left", fontweight="bold")
            _label_cells(axes, here, named)
        _label_tokens(panels[0], found)
        _draw_key(figure, panels, scale, cost.values, _key_label(found, unit, scale))
    return figure


def _key_label(found: xr.Dataset, unit: str, scale: ColourScale) -> str:
    """Return what the colours mean, and what the readout is in the clean pass."""
    meaning = f"{_target(found)}: {unit} lost by ablating there. Dot: {tick_text(scale.struck)} or more gained."
    likely = f", probability {float(found['probability']):.0%}" if str(found["readout"].values) == "logit" else ""
    return f"{meaning} Clean: {number(float(found['logit']), 1)}{likely}."


def _target(found: xr.Dataset) -> str:
    """Return what is read, in a few words: the target, if its logit is read."""
    if str(found["readout"].values) != "logit":
        return printable(str(found["readout"].values), 30)
    return f"“{printable(str(found['target_text'].values).strip(), 24)}”"


def _norm(scale: ColourScale) -> AsinhNorm:
    return AsinhNorm(scale.linear, vmin=-scale.most, vmax=scale.most)


def _draw_panel(axes: Axes, cost: xr.DataArray, scale: ColourScale, line: float) -> None:
    """Draw the cells of one kind, the first token above, and the dots on gains."""
    for side in axes.spines.values():
        side.set_visible(False)
    rows, columns = cost.shape
    edges = np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5
    axes.pcolormesh(
        *edges, cost.values, cmap=COLOURS, norm=_norm(scale), edgecolors="white" if line else "none", linewidth=line
    )
    axes.set_ylim(rows - 0.5, -0.5)
    axes.tick_params(length=0)
    gains = np.nonzero(cost.values <= -scale.struck)
    axes.scatter(gains[1], gains[0], s=2.2, color=_DOT, linewidths=0, zorder=3)
    blocks = cost["component_block"].values
    firsts = [int(np.flatnonzero(blocks == block)[0]) for block in sorted(set(blocks.tolist()))]
    step = 5 if len(firsts) > 12 else 1
    shown = firsts[::step]
    axes.set_xticks(shown, [str(blocks[first]) for first in shown])
    axes.set_xlabel("Block")


def _label_cells(axes: Axes, cost: xr.DataArray, named: list[tuple[int, str]]) -> None:
    """Frame and label the cells that stand in this panel; the label is where there is more room."""
    names = list(map(str, cost["component"].values))
    for row, name in named:
        if name not in names:
            continue
        column = names.index(name)
        axes.add_patch(_frame(column, row))
        right = column < 0.6 * len(names)
        axes.annotate(
            f"{name} {number(float(cost.values[row, column]), 1)}",
            (column + (0.5 if right else -0.5), row),
            xytext=(3 if right else -3, 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center_baseline",
            fontsize=6.5,
            fontweight="bold",
            bbox={"facecolor": "white", "alpha": 0.85, "linewidth": 0, "pad": 0.8},
            zorder=5,
        )


def _frame(column: int, row: int) -> Rectangle:
    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=style.BLACK, linewidth=0.9, zorder=4)


def _label_tokens(axes: Axes, found: xr.Dataset) -> None:
    """Label the rows by their tokens; the last one, which is read, is bold."""
    texts = [printable(str(text).strip(" "), _LETTERS) or "␣" for text in found["token_text"].values]
    step = -(-len(texts) // _LABELLED)
    shown = [row for row in range(len(texts)) if (len(texts) - 1 - row) % step == 0]
    axes.set_yticks(shown, [texts[row] for row in shown])
    axes.get_yticklabels()[-1].set_fontweight("bold")


def _draw_key(
    figure: Figure, panels: np.ndarray, scale: ColourScale, cost: Float[np.ndarray, "token component"], label: str
) -> None:
    """Draw the scale below the panels, as far as there are values."""
    image = ScalarMappable(_norm(scale), COLOURS)
    bar = figure.colorbar(image, ax=list(panels), location="bottom", aspect=60, shrink=0.6, pad=0.02)
    ends = min(float(cost.min()), -scale.struck), max(float(cost.max()), scale.struck)
    ticks = [*(-tick for tick in reversed(scale.ticks)), 0.0, *scale.ticks]
    # Both ends are labelled, and no tick is so near to one that the labels would overlap.
    inside = [ends[0], *(tick for tick in ticks if 2 * ends[0] <= 3 * tick <= 2 * ends[1]), ends[1]]
    bar.set_ticks(inside, labels=[tick_text(tick, 2) for tick in inside])
    bar.ax.set_xlim(*ends)
    bar.minorticks_off()
    bar.outline.set_visible(False)
    bar.set_label(label)
