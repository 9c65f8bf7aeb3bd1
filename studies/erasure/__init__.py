"""What erasure is for: do late MLPs suppress a pushed token, or recalibrate the whole prediction?"""

from studies.erasure.figure import draw
from studies.erasure.numbers import condense
from studies.erasure.page import claim, render
from studies.erasure.runs import measure

__all__ = ["claim", "condense", "draw", "measure", "render"]
