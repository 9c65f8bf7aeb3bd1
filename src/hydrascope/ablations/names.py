"""Names of ablations on the command line and on the page."""

from typing import Literal, get_args

AblationName = Literal["resample", "zero", "mean", "noise", "counterfactual", "optimal"]

ABLATIONS: tuple[AblationName, ...] = get_args(AblationName)

#: The ablations that the explorer offers: those that need no fit, which takes minutes.
LIVE_ABLATIONS = tuple(name for name in ABLATIONS if name != "optimal")
