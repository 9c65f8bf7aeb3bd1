"""Words and numbers of the page."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydrascope.reports.summary.interval import number
from studies.replication.page import MODELS

#: Names of the controls among the models.
CONTROLS = {"phantom": "the phantom", "built-in-depth": "built-in-depth"}

Bounds = Sequence[float | None]


def name(model: str) -> str:
    """Return the name of a model on the page."""
    return (MODELS | CONTROLS).get(model, model)


def interval(bounds: Bounds, digits: int = 2) -> str:
    """Return an estimate with its bounds, if it has any.

    >>> interval([0.2, 0.1, 0.3]), interval([1.5, None, None])
    ('0.20 [0.10, 0.30]', '1.50, unbounded')
    """
    estimate, low, high = bounds
    if estimate is None:
        return "–"
    if low is None or high is None:
        return f"{number(estimate, digits)}, unbounded"
    return f"{number(estimate, digits)} [{number(low, digits)}, {number(high, digits)}]"


def cells_of(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yield model, set and numbers of each set of prompts that the claims are about."""
    for model in settings["models"]:
        for label in settings["prompts"]:
            yield model, label, models[model]["sets"][label]
