"""Damping or Hydra: does repair respond to the missing prediction, or to the missing content?"""

from studies.claims import judged as primary
from studies.damping.figure import draw
from studies.damping.numbers import condense
from studies.damping.page import claim, render
from studies.damping.runs import measure

__all__ = ["claim", "condense", "draw", "measure", "primary", "render"]
