"""Study what erasure is for: suppression of a pushed token, or recalibration of the whole."""

from studies.erasure.figure import draw
from studies.erasure.numbers import condense
from studies.erasure.page import claim, render
from studies.erasure.runs import measure

__all__ = ["claim", "condense", "draw", "measure", "render"]
