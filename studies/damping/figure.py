"""Draw the shares that come back of an ablation and of its parts."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hydrascope.reports.figures import style
from hydrascope.reports.summary.interval import number
from studies.words import name

#: The bars: a number of the study, its name and its colour.
_BARS = (
    ("whole", "whole\nablation", style.BLACK),
    ("boost", "its\nopposite", style.PURPLE),
    ("damping", "push\nalone", style.BLUE),
    ("content", "content\nalone", style.ORANGE),
)
#: The second set of prompts is drawn paler.
_ALPHAS = (1.0, 0.45)
_WIDTH = 0.4


def draw(results: Mapping[str, Any]) -> Figure:
    """Return the figure: a panel for each model, and the phantom's beside them.

    Args:
        results: the study's results.
    """
    panels = [*_panels(results["models"])]
    figure = Figure(figsize=(style.PAGE, 3.2))
    figure.suptitle("A component is ablated: how much do later ones give back?", fontsize=10, fontweight="bold")
    figure.supxlabel("dark: facts · pale: natural text · lines: 95%, over prompts", fontsize=7, color=style.DIM)
    columns = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, sets) in zip(columns, panels, strict=True):
        _draw(axes, sets)
        axes.set_title(title, fontsize=9)
    columns[0].set_ylabel("Share that comes back")
    return figure


def _panels(models: Mapping[str, Any]) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    for model, of in models.items():
        found = [each["confirmation"]["difference"] for each in of["sets"].values()]
        sets = [each["own"] for each in found if each]
        if sets and model != "built-in-depth":
            content = " and ".join(number(each["share"][0], 2) for each in sets)
            title = "The phantom, made of backups" if model == "phantom" else name(model)
            yield f"{title}\ncontent’s share {content}", sets


def _draw(axes: Axes, sets: list[Mapping[str, Any]]) -> None:
    width = _WIDTH if len(sets) > 1 else 1.5 * _WIDTH
    for place, numbers in enumerate(sets):
        shift = (place - (len(sets) - 1) / 2) * width
        for bar, (key, _, colour) in enumerate(_BARS):
            estimate, low, high = (np.nan if each is None else each for each in numbers[key])
            axes.bar(bar + shift, estimate, 0.92 * width, color=colour, alpha=_ALPHAS[place % 2], linewidth=0)
            axes.vlines(
                bar + shift, low, high, color=style.BLACK if colour != style.BLACK else style.GREY, linewidth=0.9
            )
            top = np.nanmax([estimate, high, 0])
            axes.text(bar + shift, top + 0.02, number(estimate, 2), ha="center", va="bottom", fontsize=6.5)
    axes.set_ylim(top=1.08)
    axes.axhline(0, color=style.BLACK, linewidth=0.6)
    axes.set_xticks(range(len(_BARS)), [label for _, label, _ in _BARS], fontsize=7.5)
    for tick, (_, _, colour) in zip(axes.get_xticklabels(), _BARS, strict=True):
        tick.set_color(colour)
    axes.tick_params(axis="x", length=0)
