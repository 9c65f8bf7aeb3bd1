"""The paper's slope on natural text."""

from studies.claims import judged as primary
from studies.natural.figure import draw
from studies.natural.numbers import condense
from studies.natural.page import claim, render
from studies.natural.runs import measure

__all__ = ["claim", "condense", "draw", "measure", "primary", "render"]
