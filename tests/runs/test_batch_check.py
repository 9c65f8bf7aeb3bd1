"""How far a prompt's numbers are from those of the prompt alone, as a share of what rounding explains."""

import math
import warnings

import numpy as np
import pytest

import hydrascope as hs
from hydrascope.runs.batch_check import excess


@pytest.mark.parametrize(
    ("difference", "allowed", "expected"),
    [(1.0, 4.0, 0.25), (0.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1e-9, 0.0, math.inf), (math.nan, 1.0, math.inf)],
)
def test_excess(difference: float, allowed: float, expected: float) -> None:
    assert excess(difference, allowed) == expected


def test_a_readout_of_which_all_is_zero_is_measured() -> None:
    """Rounding explains nothing there, and nothing differs."""
    model = hs.load_model("phantom")
    blind = hs.Direction(np.zeros(model.width), before=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = hs.sweep(model, hs.load_prompts("phantom").limit(6), hs.Zero(), readouts=[hs.Logit(), blind])
    assert not results["total"].isel(readout=1).any()
    assert results.attrs["batch_difference"] <= results.attrs["batch_tolerance"]
