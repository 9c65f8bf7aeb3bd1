"""Tell whether training against failures makes a model robust."""

from studies.claims import judged as primary
from studies.training.figure import draw
from studies.training.numbers import condense
from studies.training.page import claim, render
from studies.training.runs import measure

__all__ = ["claim", "condense", "draw", "measure", "primary", "render"]
