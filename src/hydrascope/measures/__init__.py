"""What a run's results say: pure functions on the dataset, with confidence intervals over prompts.

Every function takes the results as `xarray.open_zarr` gives them. Where several are wanted, average the
patches once and hand that to each: `effects = average_patches(results)`.
"""

from hydrascope.measures.agreement import agreement
from hydrascope.measures.bootstrap import BOUNDS, Bootstrap, interval, mean_interval
from hydrascope.measures.compensation import compensable, compensation
from hydrascope.measures.effects import (
    average_patches,
    change,
    direct_effect,
    kinds,
    layers,
    of_kind,
    removed_effect,
    require_complete,
)
from hydrascope.measures.erasure import erasure
from hydrascope.measures.localisation import localisation, strongest
from hydrascope.measures.regression import (
    best_layer,
    compensation_regression,
    regression,
    repair_profile,
)
from hydrascope.measures.restoration import restoration
from hydrascope.measures.shift import response_shift

__all__ = [
    "BOUNDS",
    "Bootstrap",
    "agreement",
    "average_patches",
    "best_layer",
    "change",
    "compensable",
    "compensation",
    "compensation_regression",
    "direct_effect",
    "erasure",
    "interval",
    "kinds",
    "layers",
    "localisation",
    "mean_interval",
    "of_kind",
    "regression",
    "removed_effect",
    "repair_profile",
    "require_complete",
    "response_shift",
    "restoration",
    "strongest",
]
