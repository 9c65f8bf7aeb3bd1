"""Claims are held against intervals, and corrected for their number, as textbooks do it."""

import json
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm, t

from studies import brakes, replication
from studies.claims import holm, p_above, p_below, p_between
from studies.study import STUDIES


def test_a_p_is_that_of_a_test_with_the_interval_as_spread() -> None:
    bounds = [0.6, 0.6 - 1.959964 * 0.1, 0.6 + 1.959964 * 0.1]
    assert p_above(bounds, 0.5) == pytest.approx(norm.sf(1.0), rel=1e-5)
    assert p_below(bounds, 0.5) == pytest.approx(norm.cdf(1.0), rel=1e-5)
    assert p_above(bounds, 0.5, freedom=11) == pytest.approx(t(11).sf(1.0), rel=1e-5)
    assert p_between(bounds, 0.5, 0.9) == pytest.approx(norm.sf(1.0), rel=1e-5)
    assert p_above([0.6, None, None], 0.5) == p_below([None, None, None], 0.5) == 1


def step_down(p: dict[str, float], claims: int) -> dict[str, float]:
    """Holm's method by its definition: the smallest level at which a claim is among those that hold."""
    names, values = sorted(p, key=lambda name: p[name]), sorted([*p.values(), *[1.0] * (claims - len(p))])

    def holding(level: float) -> int:
        return next((place for place, each in enumerate(values) if each > level / (claims - place)), claims)

    levels = np.linspace(0, 1, 20_001)
    found = dict.fromkeys(names, 1.0)
    for level in levels[::-1]:
        found |= dict.fromkeys(names[: holding(level)], float(level))
    return found


@pytest.mark.parametrize("claims", [4, 11])
def test_holm_is_the_smallest_level_at_which_a_claim_holds(claims: int) -> None:
    for values in permutations([0.001, 0.02, 0.021, 0.6]):
        p = dict(zip("abcd", values, strict=True))
        assert holm(p, claims) == pytest.approx(step_down(p, claims), abs=1e-4)
        assert list(holm(p, claims)) == list("abcd")


@pytest.mark.parametrize(
    ("slope", "outcome"), [([0.7, 0.6, 0.8], "holds"), ([0.95, 0.91, 1.0], "refuted"), ([0.9, 0.8, 1.0], "can't tell")]
)
def test_the_replication_holds_its_range_against_each_model(slope: list[float], outcome: str) -> None:
    runs = {"a": {"resample": {"best": {"slope": slope}}}, "b": {"resample": {"best": {"slope": [0.7, 0.65, 0.75]}}}}
    found = replication.primary({}, {"runs": runs})
    assert found.outcome == outcome
    assert (found.p < 0.05) == (outcome == "holds")
    runs["b"] = {"resample": {"best": {}}}
    assert replication.primary({}, {"runs": runs}) == ("can't tell", 1)


@pytest.mark.parametrize(
    ("share", "outcome"),
    [([0.9, 0.85, 0.95], "holds"), ([0.6, 0.45, 0.75], "refuted"), ([0.8, 0.7, 0.9], "can't tell")],
)
def test_the_brakes_hold_their_share_against_two_limits(share: list[float], outcome: str) -> None:
    settings: dict[str, Any] = json.loads(Path(STUDIES / "brakes" / "settings.json").read_text("utf-8"))
    found = brakes.primary(settings, {"models": {"smollm2": {"share": {"zero": share}}}})
    assert found.outcome == outcome
    assert (found.p < 0.05) == (outcome == "holds")
