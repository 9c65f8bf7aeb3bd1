"""The depth at which the response passes from attention to MLPs (§4.2, Figure 8)."""

import numpy as np
import xarray as xr

from hydrascope.components.component import SublayerKind
from hydrascope.measures.bootstrap import Bootstrap, interval
from hydrascope.measures.compensation import compensation
from hydrascope.measures.effects_type import Effects, takes_effects
from hydrascope.measures.labels import block_numbers, depth, kinds, of_kind
from hydrascope.measures.regression import holds_from
from hydrascope.utils.errors import HydrascopeError


@takes_effects
def response_shift(effects: Effects, kind: SublayerKind = "attn", bootstrap: Bootstrap | None = None) -> xr.Dataset:
    """Measure the MLPs' share of the response to each ablation, and where it exceeds one half.

    Only ablated sublayers with both attention and MLPs downstream are compared.

    >>> shift = hs.measures.response_shift(effects, "attn")

    Args:
        effects: on one readout.
        kind: the kind of the ablated sublayers.
        bootstrap: how intervals are drawn.

    Returns:
        `mlp_share` [bound, ablated], without unit: the mean over prompts of the absolute part of CE due to MLPs,
        divided by the same mean summed over attention and MLPs; NaN where nothing responds. `block` [bound]: the first
        block from which on the share stays above one half, or the number of blocks if there is none; NaN if a share is
        NaN.

    Raises:
        HydrascopeError: no ablated sublayer of this kind has both kinds downstream.
    """
    is_mlp = xr.DataArray(np.array(kinds(effects["component"])) == "mlp", dims="component")
    both = (effects["downstream"] & is_mlp).any("component") & (effects["downstream"] & ~is_mlp).any("component")
    response = of_kind(compensation(effects).isel(ablated=both.values), "ablated", kind)
    if not response.sizes["ablated"]:
        raise HydrascopeError(
            f"no ablated {kind} sublayer has both attention and MLPs downstream: ablate sublayers of earlier blocks"
        )
    blocks = np.array(block_numbers(response["ablated"]))
    samples = abs(response[["attention", "mlp"]])

    def measure(means: xr.Dataset) -> xr.Dataset:
        total = means["attention"] + means["mlp"]
        share = means["mlp"] / total.where(total > 0)
        block = holds_from(share > 0.5, blocks, depth(effects)).where(share.notnull().all("ablated"))
        return xr.Dataset({"mlp_share": share, "block": block})

    return interval(measure, samples, bootstrap or Bootstrap())
