"""Draw the KL divergence of each arm against the control's, by the share of failures in training."""

from collections.abc import Iterator, Mapping
from math import exp, log
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from hydrascope.reports.figures import style

#: The kinds of failure, and their colours.
KINDS = {"zeros": style.BLUE, "swaps": style.VERMILION, "dropout": style.GREEN}
#: The tests, and their panels.
_PANELS = {"zero": "set to zero", "mean": "set to its mean", "resample": "set to another text's"}
#: Marks of the axis, as multiples of the control's KL.
_MARKS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)
#: The least distance of two labels, as a share of the axis.
_APART = 0.08


def draw(results: Mapping[str, Any]) -> Figure:
    """Return the figure: a panel for each test.

    Args:
        results: the study's results.
    """
    figure = Figure(figsize=(style.PAGE, 3.1))
    figure.suptitle(
        "Trained while sublayers fail: how much does the ablation of one still change?", fontsize=10, fontweight="bold"
    )
    columns = figure.subplots(1, len(_PANELS), sharey=True)
    for axes, (test, words) in zip(columns, _PANELS.items(), strict=True):
        axes.set_title(words, fontsize=9)
        axes.axhline(0, color=style.GREY, linewidth=0.6)
        for kind, colour in KINDS.items():
            _draw(axes, [*lines_of(results["gain"][test], kind)], colour)
        axes.set_xticks([0, 0.1, 0.2])
        axes.set_xlim(-0.01, 0.34)
        axes.set_xlabel("share of failures in training", loc="left")
    low, high = columns[0].get_ylim()
    marks = [mark for mark in _MARKS if low <= log(mark) <= high]
    columns[0].yaxis.set_major_locator(FixedLocator([log(mark) for mark in marks]))
    columns[0].yaxis.set_minor_locator(NullLocator())
    columns[0].set_yticklabels([f"× {mark:g}" for mark in marks])
    columns[0].set_ylabel("change of the prediction (KL),\nagainst training without failures")
    for axes, test in zip(columns, _PANELS, strict=True):
        _label(axes, results["gain"][test], (low, high))
    return figure


def lines_of(gains: Mapping[str, Any], kind: str) -> Iterator[tuple[float, list[float], float]]:
    """Yield for each dose of a kind the dose, the change in each seed and the mean; without failures nothing changes.

    Args:
        gains: the changes of one test, by arm.
        kind: the kind of failure.
    """
    own = {float(arm.split()[1]): of for arm, of in gains.items() if arm.startswith(f"{kind} ")}
    if own:
        yield 0.0, [0.0] * len(next(iter(own.values()))["seeds"]), 0.0
    for dose in sorted(own):
        yield dose, own[dose]["seeds"], own[dose]["bounds"][0]


def _draw(axes: Axes, points: list[tuple[float, list[float], float]], colour: str) -> None:
    if not points:
        return
    doses, seeds, means = zip(*points, strict=True)
    axes.plot(doses, np.array(seeds), "-", color=colour, linewidth=0.6, alpha=0.6)
    axes.plot(doses, means, "-o", color=colour, linewidth=2, markersize=4)


def _label(axes: Axes, gains: Mapping[str, Any], limits: tuple[float, float]) -> None:
    """Name the kinds at the ends of their lines, without overlap."""
    ends = {kind: [*lines_of(gains, kind)] for kind in KINDS}
    last = sorted((points[-1][2], kind, points[-1][0]) for kind, points in ends.items() if points)
    places = _apart([gain for gain, _, _ in last], _APART * (limits[1] - limits[0]))
    for place, (gain, kind, dose) in zip(places, last, strict=True):
        axes.text(
            dose + 0.012,
            place,
            f"{kind} {100 * (exp(gain) - 1):+.0f}%".replace("-", "−"),
            color=KINDS[kind],
            fontsize=8,
            fontweight="bold",
            va="center",
        )


def _apart(places: list[float], least: float) -> list[float]:
    """Move ascending places until neighbours are the least distance apart, each pair by as much up as down."""
    moved = list(places)
    for _ in range(100):
        for above in range(1, len(moved)):
            missing = least - (moved[above] - moved[above - 1])
            if missing > 0:
                moved[above - 1] -= missing / 2
                moved[above] += missing / 2
    return moved
