"""Tell whether the same heads repair in every context."""

from studies.claims import judged as primary
from studies.repairers.figure import draw
from studies.repairers.numbers import condense
from studies.repairers.page import claim, render
from studies.repairers.runs import measure

__all__ = ["claim", "condense", "draw", "measure", "primary", "render"]
