"""Names of ablations on the command line and on the page."""

from typing import Literal, get_args

AblationName = Literal["resample", "zero", "mean", "noise", "counterfactual"]

ABLATIONS: tuple[AblationName, ...] = get_args(AblationName)
