"""Objections to the page, answered from its numbers."""

from collections.abc import Iterator, Mapping
from typing import Any


def objections(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the objections to the page, with their numbers.

    Args:
        results: the study's results.
    """
    yield "- None yet."
