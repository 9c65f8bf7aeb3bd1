"""Do unembedding and ablation agree on how important a part is? (§2.5, Figure 2)"""

import numpy as np
import xarray as xr

from hydrascope.measures.bootstrap import Bootstrap, mean_interval
from hydrascope.measures.effects import direct_effect
from hydrascope.measures.effects_type import Effects, takes_effects
from hydrascope.measures.regression import regression


@takes_effects
def agreement(effects: Effects, bootstrap: Bootstrap | None = None) -> xr.Dataset:
    """Direct effect against what the ablation really costs, per ablated part (Figure 2d).

    Returns:
        `correlation` over prompts between `unembed` and −`total` (Pearson's; NaN where one is constant) and
        `share`, that of prompts with `unembed` > −`total`: whose logit falls by less than the ablated part
        had contributed. Both [bound, ablated], without unit.

    Raises:
        HydrascopeError: a part was ablated that wasn't read.
    """
    bootstrap = bootstrap or Bootstrap()
    direct, lost = direct_effect(effects), -effects["total"]
    # A comparison with NaN is False: it would count as a prompt that doesn't exceed.
    exceeds = (direct > lost).where((abs(direct) < np.inf) & (abs(lost) < np.inf))
    return xr.Dataset(
        {
            "correlation": regression(direct, lost, bootstrap)["correlation"],
            "share": mean_interval(exceeds, bootstrap),
        }
    )
