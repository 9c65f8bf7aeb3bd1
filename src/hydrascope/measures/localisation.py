"""How many downstream attention layers take part in the response to an ablation? (§2.5.2)"""

import numpy as np
import xarray as xr

from hydrascope.measures.effects import average_patches, direct_effect, of_kind


def localisation(results: xr.Dataset, share: float = 0.1) -> xr.Dataset:
    """How many downstream attention layers change by more than a share of the ablated one's effect.

    A layer counts for a prompt where |ΔDE|, averaged over patches, is above `share` · |DE| of the ablated
    layer. Prompts on which the ablated layer does nothing make every layer count: look at the layers and
    prompts with a strong effect, as the paper does (`strongest`).

    Returns:
        `changed` [prompt, ablated], the number of such layers, NaN where a value is no number; `available`
        [ablated], how many attention layers are downstream at all.
    """
    effects = of_kind(average_patches(results), "component", "attn")
    effects = effects.assign(direct=direct_effect(average_patches(results)))
    downstream = effects["downstream"]
    moved = abs(effects["unembed_ablated"] - effects["unembed"])
    counts = ((moved > share * abs(effects["direct"])) & downstream).sum("component")
    known = (moved < np.inf).all("component") & (abs(effects["direct"]) < np.inf)
    return xr.Dataset(
        {
            "changed": counts.where(known).transpose("prompt", "ablated"),
            "available": downstream.sum("component"),
        }
    )


def strongest(direct: xr.DataArray) -> xr.DataArray:
    """The ablated layer with the largest direct effect, on each prompt or on average: its label, [prompt] or [].

    Args:
        direct: from `direct_effect`, of the layers to choose from.
    """
    # Not idxmax, which can't return labels of numpy's StringDType.
    labels = direct["ablated"].drop_vars("ablated")
    return labels.isel(ablated=direct.argmax("ablated", skipna=False)).rename("strongest")
