"""Compensation by the rest of the network for an ablation (Eq. 33, 34)."""

import numpy as np
import xarray as xr

from hydrascope.components.component import SublayerKind
from hydrascope.measures.effects_type import Effects, takes_effects
from hydrascope.measures.labels import kinds, separable


@takes_effects
def compensation(effects: Effects) -> xr.Dataset:
    """Return CE: the change in direct effect, summed over all sublayers downstream (Eq. 33).

    CE is positive where the network makes up for the ablation, and 0 where nothing is downstream. It is NaN where heads
    or neurons of several sublayers are ablated together: see `own_change`.

    >>> mean = hs.measures.compensation(effects)["compensation"].mean("prompt")

    Args:
        effects: on one readout.

    Returns:
        `compensation`, and its parts due to `attention` and `mlp` sublayers, which add up to it. Each [prompt,
        ablated], in the readout's unit, averaged over patches.
    """
    changes = _downstream_change(effects, ("attn", "mlp"))
    attention, mlp = (changes.isel(kind=index) for index in (0, 1))
    return xr.Dataset({"compensation": attention + mlp, "attention": attention, "mlp": mlp})


def _downstream_change(effects: Effects, sublayer_kinds: tuple[SublayerKind, ...]) -> xr.DataArray:
    """Return Σ (`unembed_ablated` − `unembed`) over the downstream sublayers of each kind."""
    component_kinds = kinds(effects["component"])
    is_kind = xr.DataArray(
        [[each == kind for each in component_kinds] for kind in sublayer_kinds], dims=("kind", "component")
    )
    mask = (effects["downstream"] & is_kind).astype(np.float64)
    # The sum of the differences would need a second copy of the largest array.
    after: xr.DataArray = xr.dot(effects["unembed_ablated"], mask, dim="component")
    before: xr.DataArray = xr.dot(effects["unembed"], mask, dim="component")
    return (after - before).transpose("kind", "prompt", "ablated").where(separable(effects["ablated"]))


@takes_effects
def compensable(effects: Effects) -> xr.DataArray:
    """Whether any sublayer is downstream of the ablated component, so that CE can differ from 0.

    >>> can_respond = hs.measures.compensable(effects)

    Args:
        effects: on one readout.

    Returns:
        `[ablated]`, booleans.
    """
    return effects["downstream"].any("component").rename("compensable")
