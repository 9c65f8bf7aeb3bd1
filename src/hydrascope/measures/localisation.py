"""The number of downstream attention sublayers that respond to an ablation (§2.5.2)."""

import numpy as np
import xarray as xr

from hydrascope.measures.effects import direct_effect
from hydrascope.measures.effects_type import Effects, takes_effects
from hydrascope.measures.labels import of_kind


@takes_effects
def localisation(effects: Effects, share: float = 0.1) -> xr.Dataset:
    """Count the attention sublayers whose direct effect changes by more than a threshold.

    A sublayer counts for a prompt if |ΔDE|, averaged over patches, is above `share` · |DE| of the ablated component.
    Where that component has no effect, every sublayer counts: look at components and prompts with a strong effect, as
    the paper does (`strongest`).

    >>> changed = hs.measures.localisation(effects)["changed"]

    Args:
        effects: on one readout.
        share: the threshold, as a share of the ablated component's direct effect.

    Returns:
        `changed` [prompt, ablated], the number of such sublayers, NaN where a value is not finite; `available`
        [ablated], the number of attention sublayers downstream.

    Raises:
        HydrascopeError: an ablated component wasn't read.
    """
    effects = of_kind(effects, "component", "attn")
    downstream, threshold = effects["downstream"], share * abs(direct_effect(effects))
    size = abs(effects["unembed_ablated"] - effects["unembed"])
    counts = ((size > threshold) & downstream).sum("component")
    finite = (size < np.inf).all("component") & (threshold < np.inf)
    return xr.Dataset(
        {
            "changed": counts.where(finite).transpose("prompt", "ablated"),
            "available": downstream.sum("component"),
        }
    )


def strongest(effect: xr.DataArray) -> xr.DataArray:
    """Return the label of the ablated component with the largest effect.

    >>> labels = hs.measures.strongest(hs.measures.direct_effect(effects))

    Args:
        effect: [prompt, ablated] or [ablated], such as `direct_effect`.

    Returns:
        labels, [prompt] or [].
    """
    return effect.idxmax("ablated", skipna=False).rename("strongest")
