"""The agreement of unembedding and ablation on the importance of components (§2.5, Fig. 2)."""

import numpy as np
import xarray as xr

from hydrascope.measures.bootstrap import Bootstrap, mean_interval
from hydrascope.measures.effects import direct_effect
from hydrascope.measures.effects_type import Effects, takes_effects
from hydrascope.measures.regression import regression


@takes_effects
def agreement(effects: Effects, bootstrap: Bootstrap | None = None) -> xr.Dataset:
    """Compare direct effects with the losses that ablations cause (Figure 2d).

    >>> correlation = hs.measures.agreement(effects)["correlation"]

    Args:
        effects: on one readout.
        bootstrap: how intervals are drawn.

    Returns:
        `correlation` [bound, ablated], Pearson's over prompts between `unembed` and −`total`, NaN where one of them is
        constant; `share` [bound, ablated], the share of prompts with `unembed` > −`total`. Both have no unit.

    Raises:
        HydrascopeError: an ablated component wasn't read.
    """
    bootstrap = bootstrap or Bootstrap()
    direct, lost = direct_effect(effects), -effects["total"]
    # Comparisons with NaN are False: a prompt without a value must not count.
    exceeds = (direct > lost).where((abs(direct) < np.inf) & (abs(lost) < np.inf))
    return xr.Dataset(
        {
            "correlation": regression(direct, lost, bootstrap)["correlation"],
            "share": mean_interval(exceeds, bootstrap),
        }
    )
