"""Hold the declared claim against the share of brakes."""

from collections.abc import Mapping
from typing import Any

from studies.brakes.templates import NEW
from studies.claims import Primary, p_above


def primary(settings: Mapping[str, Any], results: Mapping[str, Any]) -> Primary:
    """Return the outcome and the p of the primary claim, which is about the first model.

    Args:
        settings: the study's settings.
        results: the study's results.
    """
    share = results["models"][settings["models"][0]]["share"]["zero"]
    low = share[1]
    outcome = "refuted" if low < settings["refuting"] else "holds" if low > settings["threshold"] else "can't tell"
    return Primary(outcome, p_above(share, settings["threshold"], freedom=len(NEW) - 1))
