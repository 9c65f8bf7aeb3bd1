"""What erasure is for: do late MLPs suppress a pushed token, or recalibrate the whole prediction?"""

from studies.erasure.numbers import condense
from studies.erasure.runs import measure

__all__ = ["condense", "measure"]
