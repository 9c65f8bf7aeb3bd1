"""Draw slope and R² of compensation over depth, as Figure 7d of the paper."""

from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hydrascope.reports.figures import style
from studies.replication.page import ABLATIONS, number_of_block
from studies.words import name

#: Slopes beyond these are drawn as triangles at the edge.
_LIMITS = (-0.5, 1.6)
_COLOURS = {"resample": style.BLUE, "zero": style.GREY}
#: Points of the two ablations stand side by side.
_SHIFTS = {"resample": -0.15, "zero": 0.15}
_PAPER_SLOPE, _PAPER_R2 = 0.7, 0.92


def draw(results: dict[str, Any]) -> Figure:
    """Return the figure: a column for each model, with slopes above and R² below.

    Args:
        results: the study's results.
    """
    runs = results["runs"]
    figure = Figure(figsize=(style.PAGE, 4))
    rows = figure.subplots(2, len(runs), sharey="row", sharex="col", squeeze=False, height_ratios=(2, 1))
    for (upper, lower), (model, of_model) in zip(rows.T, runs.items(), strict=True):
        _draw_slopes(upper, of_model)
        _draw_r2(lower, of_model)
        upper.set_title(name(model))
        lower.set_xlabel("Block of the ablated attention sublayer")
    rows[0, 0].set_ylabel("Slope of CE on DE")
    rows[1, 0].set_ylabel("R²")
    figure.legend(*rows[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _draw_slopes(axes: Axes, of_model: dict[str, Any]) -> None:
    axes.axhline(0, color=style.GREY, linewidth=0.5)
    axes.axhline(1, color=style.GREY, linewidth=0.5, linestyle=":")
    axes.axhline(_PAPER_SLOPE, color=style.ORANGE, linewidth=1, label="the paper, Chinchilla 7B")
    for ablation, of in of_model.items():
        blocks, (estimate, low, high) = _by_block(of["attention"]["slopes"])
        x, colour = blocks + _SHIFTS[ablation], _COLOURS[ablation]
        inside = (estimate >= _LIMITS[0]) & (estimate <= _LIMITS[1])
        axes.vlines(x, *np.clip([low, high], *_LIMITS), color=colour, linewidth=1)
        axes.plot(x[inside], estimate[inside], "o", color=colour, label=ABLATIONS[ablation])
        for beyond, marker, edge in (
            (estimate > _LIMITS[1], "^", _LIMITS[1]),
            (estimate < _LIMITS[0], "v", _LIMITS[0]),
        ):
            if beyond.any():
                axes.plot(x[beyond], np.full(beyond.sum(), edge), marker, color=colour)
    axes.set_ylim(_LIMITS[0] - 0.05, _LIMITS[1] + 0.05)


def _draw_r2(axes: Axes, of_model: dict[str, Any]) -> None:
    axes.axhline(_PAPER_R2, color=style.ORANGE, linewidth=1)
    for ablation, of in of_model.items():
        blocks, (values,) = _by_block({label: [value] for label, value in of["attention"]["r2"].items()})
        axes.plot(blocks, values, "-o", color=_COLOURS[ablation], linewidth=0.8)
    axes.set_ylim(0, 1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _by_block(values: dict[str, list[float | None]]) -> tuple[np.ndarray, Float[np.ndarray, "value block"]]:
    numbers = [[np.nan if each is None else each for each in of] for of in values.values()]
    return np.array([number_of_block(label) for label in values]), np.array(numbers, dtype=float).T
