"""Where in depth the response to an ablation passes from attention to MLPs (§4.2, Figure 8)."""

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
    """The MLPs' share of the response to each ablation, and the layer from which on it is the larger one.

    Only ablated layers that have both attention and MLPs downstream are compared: above them the answer is
    settled by the architecture, not by the model.

    Args:
        kind: the kind of the ablated layers.

    Returns:
        `mlp_share` [bound, ablated], the mean over prompts of |the MLPs' part of CE| over that of the
        absolute parts of both kinds, without unit, NaN where nothing responds; `layer` [bound], the first
        layer from which on the share stays above one half, the number of the network's layers if there is
        none, NaN if some share is unknown.

    Raises:
        HydrascopeError: no ablated layer of this kind has both kinds downstream.
    """
    is_mlp = xr.DataArray(np.array(kinds(effects["component"])) == "mlp", dims="component")
    both = (effects["downstream"] & is_mlp).any("component") & (effects["downstream"] & ~is_mlp).any("component")
    response = of_kind(compensation(effects).isel(ablated=both.values), "ablated", kind)
    if not response.sizes["ablated"]:
        raise HydrascopeError(f"no {kind} layer was ablated that has attention and MLP layers downstream")
    positions = np.array(block_numbers(response["ablated"]))
    samples = abs(response[["attention", "mlp"]])

    def measure(means: xr.Dataset) -> xr.Dataset:
        total = means["attention"] + means["mlp"]
        share = means["mlp"] / total.where(total > 0)
        layer = holds_from(share > 0.5, positions, depth(effects)).where(share.notnull().all("ablated"))
        return xr.Dataset({"mlp_share": share, "block": layer})

    return interval(measure, samples, bootstrap or Bootstrap())
