"""How much the rest of the network compensates for an ablated component (Eq. 33, 34)."""

import numpy as np
import xarray as xr

from hydrascope.components import Kind
from hydrascope.measures.effects import average_patches, kinds


def compensation(results: xr.Dataset) -> xr.Dataset:
    """CE: the change in direct effect, summed over all components downstream of the ablated one (Eq. 33).

    Which components those are is the result's own `downstream`. Positive where the network makes up for what
    was taken away; a sum without terms, at the top of the network, is 0.

    Returns:
        `compensation`, and the shares of it due to `attention` and `mlp` layers, which add up to it, all
        [prompt, ablated], in logits, averaged over patches.
    """
    effects = average_patches(results)
    attention, mlp = (_downstream_change(effects, kind) for kind in ("attn", "mlp"))
    return xr.Dataset({"compensation": attention + mlp, "attention": attention, "mlp": mlp})


def _downstream_change(effects: xr.Dataset, kind: Kind) -> xr.DataArray:
    """Σ of (`unembed_ablated` − `unembed`) over the components of one kind that are downstream, in logits."""
    of_kind = xr.DataArray(np.array(kinds(effects["component"])) == kind, dims="component")
    mask = (effects["downstream"] & of_kind).astype(np.float64)
    # The difference of the sums: the sum of the differences would need the biggest array a second time.
    after = xr.dot(effects["unembed_ablated"], mask, dim="component")
    before = xr.dot(effects["unembed"], mask, dim="component")
    return (after - before).transpose("prompt", "ablated")


def compensable(results: xr.Dataset) -> xr.DataArray:
    """Whether anything is downstream of each ablated component, so that compensation is possible at all."""
    return results["downstream"].any("component").rename("compensable")
