"""The paper's slope on natural text."""

from studies.natural.runs import measure

__all__ = ["measure"]
