"""Objections to the page, answered from its numbers."""

from collections.abc import Iterator, Mapping
from typing import Any


def objections(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    """Yield the objections to the page, with their numbers.

    Args:
        settings: the study's settings.
        models: the numbers of each model.
    """
    yield ""
