"""Who makes up for an ablated head: substitutes, or brakes that let go?"""

from studies.brakes.figure import draw
from studies.brakes.numbers import condense
from studies.brakes.page import claim, render
from studies.brakes.runs import measure

__all__ = ["claim", "condense", "draw", "measure", "render"]
