"""How much the rest of the network compensates for what is ablated (Eq. 33, 34)."""

import numpy as np
import xarray as xr

from hydrascope.components.component import SublayerKind
from hydrascope.measures.effects_type import Effects, takes_effects
from hydrascope.measures.labels import kinds, separable


@takes_effects
def compensation(effects: Effects) -> xr.Dataset:
    """CE: the change in direct effect, summed over all layers downstream of what is ablated (Eq. 33).

    Which layers those are is the result's own `downstream`. Positive where the network makes up for what
    was taken away; a sum without terms, at the top of the network, is 0. NaN where heads or neurons of several
    layers are ablated together: see `own_change`.

        compensation(per_prompt(results, sigma="own"))["compensation"].mean("prompt")

    Returns:
        `compensation`, and the parts of it due to `attention` and `mlp` layers, which add up to it, all
        [prompt, ablated], in logits, averaged over patches.
    """
    found = _downstream_change(effects, ("attn", "mlp"))
    attention, mlp = (found.isel(kind=place) for place in (0, 1))
    return xr.Dataset({"compensation": attention + mlp, "attention": attention, "mlp": mlp})


def _downstream_change(effects: Effects, of: tuple[SublayerKind, ...]) -> xr.DataArray:
    """Σ of (`unembed_ablated` − `unembed`) over the layers of each kind that are downstream, in logits."""
    found = kinds(effects["component"])
    of_kind = xr.DataArray([[each == kind for each in found] for kind in of], dims=("kind", "component"))
    mask = (effects["downstream"] & of_kind).astype(np.float64)
    # The difference of the sums: the sum of the differences would need the biggest array a second time.
    after = xr.dot(effects["unembed_ablated"], mask, dim="component")
    before = xr.dot(effects["unembed"], mask, dim="component")
    return (after - before).transpose("kind", "prompt", "ablated").where(separable(effects["ablated"]))


@takes_effects
def compensable(effects: Effects) -> xr.DataArray:
    """`[ablated]` whether any layer is downstream of what is ablated, so that compensation is possible at all."""
    return effects["downstream"].any("component").rename("compensable")
