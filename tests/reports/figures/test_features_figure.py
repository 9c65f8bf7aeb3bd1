"""The figure of an analysis of features: numbers read back from its artists."""

import io

import numpy as np
import pytest
import xarray as xr
from feature_numbers import ABLATED, PARTS, RESTORED, SHARES, made
from matplotlib.axes import Axes
from matplotlib.text import Text

from hydrascope.measures import Bootstrap
from hydrascope.reports.figures import features as module
from hydrascope.reports.figures import figure_features
from hydrascope.reports.summary.feature_table import feature_rows, feature_share_rows

FEW = Bootstrap(resamples=100)


def points(axes: Axes) -> dict[tuple[str, float], float]:
    """From colour and height to the place of each point."""
    drawn = [line for line in axes.lines if line.get_marker() not in ("None", None) and len(line.get_xdata())]
    return {(line.get_color(), round(float(line.get_ydata()[0]), 6)): float(line.get_xdata()[0]) for line in drawn}


def bars(axes: Axes) -> dict[float, list[float]]:
    """From a height to the ends of the line there."""
    ends = [lines.get_segments()[0] for lines in axes.collections]
    return {round(float(each[0, 1]), 6): [float(each[0, 0]), float(each[1, 0])] for each in ends}


def without_edges(data: xr.Dataset) -> xr.Dataset:
    """The ablations with known shares, all of them on the axes."""
    return data.sel(ablated=ABLATED[:2])


@pytest.mark.parametrize("readout", [None, "probe"])
def test_shares_stand_where_they_should(readout: str | None) -> None:
    data = without_edges(made())
    figure = figure_features(data, readout, FEW)
    rows = feature_share_rows(data, readout, FEW)
    for axes, expected, name in zip(
        figure.axes, (SHARES, RESTORED), ("response_share", "restored_share"), strict=False
    ):
        found, ends = points(axes), bars(axes)
        assert len(found) == 6
        for row, ablated in enumerate(ABLATED[:2]):
            for place, (part, _, colour, _) in enumerate(module._PARTS):
                y = round(row + 0.24 * (place - 1), 6)
                assert found[colour, y] == pytest.approx(expected[row, PARTS.index(part) - 1])
                (value,) = (getattr(each, name) for each in rows if (each.ablated, each.part) == (ablated, part))
                np.testing.assert_allclose(ends[y], [value.low, value.high], atol=1e-9)
        assert axes.get_xlabel() == "Share of mlp.1’s"
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ABLATED[:2]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["features", "error", "bias"]
    assert f"Readout: {readout or 'logit'}" in " ".join(figure.get_suptitle().split())


def test_single_features_stand_largest_first() -> None:
    figure = figure_features(made(), None, FEW)
    axes, rows = figure.axes[2], feature_rows(made(), None, FEW)
    found, ends = points(axes), bars(axes)
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(labels) == len(rows) == len(found) == 6
    assert labels[-1] == "12034 · attn.1"
    by_height = dict(sorted((y, x) for (_, y), x in found.items()))
    for place, row in enumerate(rows):
        y = len(rows) - 1 - place
        assert labels[y] == f"{row.feature.rpartition('.')[2]} · {row.ablated}"
        assert by_height[y] == pytest.approx(row.response.estimate)
        np.testing.assert_allclose(ends[y], [row.response.low, row.response.high])
    low, high = axes.get_ylim()
    assert low < 0 < len(rows) - 1 < high
    assert axes.get_xlabel() == "Response (logits)"


def test_unknown_shares_are_left_out_and_far_ones_written_at_the_edge() -> None:
    data = made()
    data["response"][:, :, 1, 1] *= 4
    figure = figure_features(data, None, FEW)
    first, second = figure.axes[:2]
    # Of mlp.0 no share is known: its row stays empty.
    assert all(y < 1.5 for axes in (first, second) for _, y in points(axes))
    assert [text.get_text() for text in first.texts] == ["5.6 ▶"]
    assert len(points(first)) == 5
    assert not second.texts


def test_one_ablation_without_any_known_share_is_drawn() -> None:
    figure = figure_features(made().sel(ablated=["mlp.0"]), None, FEW)
    assert not points(figure.axes[0])
    figure.savefig(io.BytesIO(), format="png")


def test_no_text_covers_another_or_is_cut() -> None:
    """At the width of a page, with as many rows as are drawn, and long labels."""
    names = [f"head.10.{number}" for number in range(14)]
    many = made().isel(ablated=[0, 1] * 7).assign_coords(ablated=names)
    figure = figure_features(many, None, FEW)
    assert figure.get_figwidth() == 7.0
    figure.draw_without_rendering()
    hidden = list(figure.axes[1].get_yticklabels())
    for axes in figure.axes:
        low, high = axes.get_xlim()
        hidden += [text for text in axes.get_xticklabels() if not low <= text.get_position()[0] <= high]
    texts = [text for axes in figure.axes for text in axes.findobj(Text)]
    shown = [text for text in texts if text.get_text().strip() and text.get_visible() and text not in hidden]
    boxes = [text.get_window_extent() for text in shown]
    for number, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
        for other, text in zip(boxes[:number], shown[:number], strict=True):
            assert not box.overlaps(other), (text.get_text(), shown[number].get_text())
    assert len(figure.axes[0].get_yticks()) == len(figure.axes[2].get_yticks()) == module.MOST
