"""How many downstream attention layers take part in the response to an ablation? (§2.5.2)"""

import numpy as np
import xarray as xr

from hydrascope.measures.effects import direct_effect
from hydrascope.measures.effects_type import Effects, takes_effects
from hydrascope.measures.labels import of_kind


@takes_effects
def localisation(effects: Effects, share: float = 0.1) -> xr.Dataset:
    """How many downstream attention layers change by more than a share of the ablated part's effect.

    A layer counts for a prompt where |ΔDE|, averaged over patches, is above `share` · |DE| of the ablated
    part. Prompts on which the ablated part does nothing make every layer count: look at the layers and
    prompts with a strong effect, as the paper does (`strongest`).

    Returns:
        `changed` [prompt, ablated], the number of such layers, NaN where a value is no number; `available`
        [ablated], how many attention layers are downstream at all.

    Raises:
        HydrascopeError: a part was ablated that wasn't read.
    """
    effects = of_kind(effects, "component", "attn")
    downstream, least = effects["downstream"], share * abs(direct_effect(effects))
    moved = abs(effects["unembed_ablated"] - effects["unembed"])
    counts = ((moved > least) & downstream).sum("component")
    known = (moved < np.inf).all("component") & (least < np.inf)
    return xr.Dataset(
        {
            "changed": counts.where(known).transpose("prompt", "ablated"),
            "available": downstream.sum("component"),
        }
    )


def strongest(effect: xr.DataArray) -> xr.DataArray:
    """The ablated part with the largest effect, on each prompt or on average: its label, [prompt] or [].

    Args:
        effect: [prompt, ablated] or [ablated], such as `direct_effect`, of the parts to choose from.
    """
    return effect.idxmax("ablated", skipna=False).rename("strongest")
