"""Write intervals, levels and small amounts with the digits that they need."""

import numpy as np
import pytest
import synthetic
import xarray as xr
from printed_summary import printed

from hydrascope.measures import Bootstrap
from hydrascope.reports.kinds import summarise
from hydrascope.reports.summary import Interval, digits_for, format_interval, format_significant, percent

FEW = Bootstrap(resamples=40)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (Interval(0.714, 0.68, 0.7449), 2, "0.71 [0.68, 0.74]"),
        (Interval(-0.001, -0.3, 0.2), 2, "0.00 [−0.30, 0.20]"),
        (Interval(23, 22, 24), 0, "23 [22, 24]"),
        (Interval(0.5, float("nan"), float("nan")), 2, "0.50"),
        (Interval(float("nan"), float("nan"), float("nan")), 2, "–"),
    ],
)
def test_an_interval_as_written(value: Interval, digits: int, text: str) -> None:
    assert format_interval(value, digits) == text


def test_a_level_of_confidence_has_the_digits_that_it_needs():
    assert [percent(level) for level in (0.95, 0.975, 1 - 0.05 / 3)] == ["95%", "97.5%", "98.3%"]


def test_what_surely_is_not_0_is_told_with_the_digits_that_show_it():
    assert [
        format_significant(Interval(*each))
        for each in [(0.5, 0.4, 0.6), (-0.0028, -0.004, -0.0013), (0.003, -0.001, 0.007)]
    ] == [
        "0.50 [0.40, 0.60]",
        "−0.003 [−0.004, −0.001]",
        "0.00 [0.00, 0.01]",
    ]
    assert format_significant(Interval(1e-9, 1e-10, 1e-8)) == "0.00 [0.00, 0.00]"
    assert format_significant(Interval(0.5, np.nan, np.nan)) == "0.50"


def test_small_amounts_are_told_with_the_digits_that_they_need():
    assert [digits_for(each) for each in ([1.2, 0.003], [0.1], [0.05, -0.002], [-0.0044, np.nan], [3e-7], [])] == [
        2,
        2,
        3,
        4,
        2,
        2,
    ]
    results = synthetic.results(4, 40, 2, heads=2)
    results["total"], results["direct"] = results["total"] / 1000, xr.zeros_like(results["direct"])
    table = printed(summarise(results, FEW), full=True).split("Ablations")[1]
    lost = -results["total"].mean(["readout", "prompt", "patch"])
    most = max(abs(lost.values), key=float)
    assert f"{most:.{digits_for([most])}f}" in table
