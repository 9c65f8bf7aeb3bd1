"""Tell how much of attribution's error is repair."""

from studies.attribution.figure import draw
from studies.attribution.numbers import condense
from studies.attribution.page import claim, render
from studies.attribution.runs import measure
from studies.claims import judged as primary

__all__ = ["claim", "condense", "draw", "measure", "primary", "render"]
