"""Study what erasure is for: suppression of a pushed token, or recalibration of the whole."""

from studies.claims import judged as primary
from studies.erasure.figure import draw
from studies.erasure.numbers import condense
from studies.erasure.page import claim, render
from studies.erasure.runs import measure

__all__ = ["claim", "condense", "draw", "measure", "primary", "render"]
