"""Tell whether damping depends on the context: how much text stands before a sentence, and which."""

from studies.claims import judged as primary
from studies.context.figure import draw
from studies.context.numbers import condense
from studies.context.page import claim, render
from studies.context.runs import measure

__all__ = ["claim", "condense", "draw", "measure", "primary", "render"]
