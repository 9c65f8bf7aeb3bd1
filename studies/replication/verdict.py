"""Hold the declared claim against the slopes."""

from collections.abc import Mapping
from typing import Any

from studies.claims import Primary, p_between, side

#: The predicted range of the best slope.
RANGE = (0.5, 0.9)


def primary(settings: Mapping[str, Any], results: Mapping[str, Any]) -> Primary:
    """Return the outcome and the p of the primary claim.

    Args:
        settings: the study's settings.
        results: the study's results.
    """
    found = [of_model["resample"]["best"] for of_model in results["runs"].values()]
    if not all(found):
        return Primary("can't tell", 1.0)
    slopes = [best["slope"] for best in found]
    sides = {side(each, *RANGE) for each in slopes}
    outcome = "refuted" if "outside" in sides else "holds" if sides == {"within"} else "can't tell"
    return Primary(outcome, max(p_between(each, *RANGE) for each in slopes))
