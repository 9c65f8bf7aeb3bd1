"""The figure of an analysis of features: shares of a response and of a restoration."""

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hydrascope.components.component import Component
from hydrascope.measures import Bootstrap, select_readout
from hydrascope.reports.figures import style
from hydrascope.reports.figures.panels import name_run, panel_letter, printable
from hydrascope.reports.figures.shares import LIMITS, draw_shares, frame_shares
from hydrascope.reports.flow.source import source_of_analysis
from hydrascope.reports.summary.feature_table import (
    FeatureRow,
    FeatureShareRow,
    feature_rows,
    feature_share_rows,
    reacts,
)
from hydrascope.reports.summary.interval import Interval

#: The parts that are drawn, with colours and markers.
_PARTS = (
    ("features", "features", style.BLUE, "o"),
    ("error", "error", style.ORANGE, "s"),
    ("bias", "bias", style.GREY, "D"),
)
#: The most ablations and features that are drawn.
MOST = 12


def figure_features(found: xr.Dataset, readout: str | None = None, bootstrap: Bootstrap | None = None) -> Figure:
    """Draw the shares of features, error and bias, and the features that respond most.

    Panels (a) and (b) show, for each ablation, the share of each part in the sublayer's response and in what the
    sublayer restores. Panel (c) shows the largest responses of single features, chosen on other prompts.

        figure_features(hydrascope.analyses.features(model, prompts)).savefig("features.png")

    Args:
        found: the result of `hydrascope.analyses.features`.
        readout: the readout's label; by default the first.
        bootstrap: how bounds are drawn.

    Raises:
        HydrascopeError: there is no such readout.
    """
    shares = feature_share_rows(found, readout, bootstrap)
    rows = feature_rows(found, readout, bootstrap)[:MOST]
    ablated = list(dict.fromkeys(row.ablated for row in shares))[:MOST]
    sublayer = Component.parse(rows[0].feature).sublayer
    with style.style():
        height = 1.7 + 0.2 * max(len(ablated), len(rows), 4)
        figure = Figure(figsize=(style.PAGE, height), layout="constrained")
        name_run(figure, source_of_analysis(select_readout(found, readout)))
        first, second, third = figure.subplots(1, 3, width_ratios=(1, 1, 1.25))
        parts = [each for each in _PARTS if any(row.part == each[0] and reacts(row) for row in shares)]
        panels = (
            (first, "a", "In the response", "response_share"),
            (second, "b", "In the restoration", "restored_share"),
        )
        for axes, letter, title, name in panels:
            panel_letter(axes, letter, title)
            frame_shares(axes, len(ablated), LIMITS)
            axes.set_xlabel(f"Share of {sublayer}’s")
            for place, (part, label, colour, marker) in enumerate(parts):
                up = 0.24 * (place - (len(parts) - 1) / 2)
                draw_shares(axes, _values(shares, ablated, part, name), up, label, colour, marker)
            axes.set_yticks(range(len(ablated)), [printable(each, 18) for each in ablated])
        first.set_ylabel("Ablated")
        second.tick_params(labelleft=False)
        first.legend(loc="lower left", bbox_to_anchor=(0, 1.1), ncols=3, handletextpad=0.2)
        _draw_features(third, rows, str(found.attrs.get("units", "logits")))
    return figure


def _values(shares: tuple[FeatureShareRow, ...], ablated: list[str], part: str, name: str) -> list[Interval]:
    of = {row.ablated: getattr(row, name) for row in shares if row.part == part}
    return [of[each] for each in ablated]


def _draw_features(axes: Axes, rows: tuple[FeatureRow, ...], unit: str) -> None:
    """Draw the responses of single features with their bounds, the largest on top."""
    panel_letter(axes, "c", "Single features")
    axes.set_ylim(-0.7, len(rows) - 0.3)
    for place, row in enumerate(rows):
        y = len(rows) - 1 - place
        axes.plot(row.response.estimate, y, "o", color=style.BLACK, markersize=3, zorder=3)
        axes.hlines(y, row.response.low, row.response.high, color=style.BLACK, linewidth=0.8)
    axes.axvline(0, color=style.GREY, linewidth=0.6, zorder=0)
    labels = [f"{row.feature.rpartition('.')[2]} · {printable(row.ablated, 12)}" for row in reversed(rows)]
    axes.set_yticks(range(len(rows)), labels)
    axes.set_xlabel(f"Response ({unit})")
    axes.set_ylabel("Feature · ablated")
