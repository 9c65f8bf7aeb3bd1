"""The axis of bars holds all but a few, and those only if that is worth it."""

import numpy as np
import pytest

from hydrascope.reports.bar_axis import bar_limits


@pytest.mark.parametrize(
    ("removed", "lost", "limits"),
    [
        ([1.0, -0.5], [0.4, 0.2], (-0.5, 1.0)),
        ([1.0, 2.0], [0.4, 0.2], (0.0, 2.0)),
        ([-1.0, -2.0], [-0.4, 0.0], (-2.0, 0.0)),
        ([np.nan, np.nan], [0.4, 0.2], (0.0, 0.4)),
        ([np.nan], [np.nan], (0.0, 1.0)),
        ([0.0], [0.0], (0.0, 1.0)),
        ([], [], (0.0, 1.0)),
    ],
)
def test_a_few_rows_are_shown_whole(removed, lost, limits):
    assert bar_limits(np.array([removed, lost])) == limits


def test_one_row_in_twenty_may_be_beyond():
    amounts = np.full((2, 40), 0.3)
    amounts[0, 3], amounts[1, 4], amounts[0, 5] = 9.0, -7.0, 0.8
    assert bar_limits(amounts) == (-0.8, 0.8)
    amounts[1, 6] = 8.0
    # Of three large ones, two could be beyond: that is not worth it.
    assert bar_limits(amounts) == (-7.0, 9.0)
    # Neither number of a row counts twice.
    amounts[1, 6], amounts[1, 3] = 0.3, 8.0
    assert bar_limits(amounts) == (-0.8, 0.8)


def test_nothing_is_clipped_that_makes_the_axis_hardly_shorter():
    amounts = np.full((2, 40), 0.3)
    amounts[0, 3], amounts[1, 7] = 1.4, 1.0
    assert bar_limits(amounts)[1] == pytest.approx(0.3)
    amounts[1, 8:12] = 1.0
    assert bar_limits(amounts) == (0.0, 1.4)
