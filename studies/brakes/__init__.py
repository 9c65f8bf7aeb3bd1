"""Tell whether substitutes or released brakes make up for an ablated head."""

from studies.brakes.figure import draw
from studies.brakes.numbers import condense
from studies.brakes.page import claim, render
from studies.brakes.runs import measure
from studies.brakes.verdict import primary

__all__ = ["claim", "condense", "draw", "measure", "primary", "render"]
