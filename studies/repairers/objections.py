"""Objections to the page, answered from its numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

from studies.words import interval, name


def objections(settings: Mapping[str, Any], models: Mapping[str, Any]) -> Iterator[str]:
    """Yield the objections to the page, with their numbers.

    Args:
        settings: the study's settings.
        models: the numbers of each model.
    """

    def each(*keys: str) -> str:
        """Return an interval of each model."""
        return "; ".join(f"{name(model)} {interval(_at(of, *keys))}" for model, of in models.items())

    yield (
        "- *The heads that write most react most, in any context.* What the heads write in the clean run agrees by "
        f"({each('readings', 'writes')}). Beyond a line on it, reactions still agree by "
        f"({each('readings', 'beyond_line', 'damping')}) for damping."
    )


def _at(of: Any, *keys: str) -> Any:
    for key in keys:
        of = of[key]
    return of
