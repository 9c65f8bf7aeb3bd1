"""Tell whether there is a Hydra effect for features."""

from studies.claims import judged as primary
from studies.features.figure import draw
from studies.features.numbers import condense
from studies.features.page import claim, render
from studies.features.runs import measure

__all__ = ["claim", "condense", "draw", "measure", "primary", "render"]
