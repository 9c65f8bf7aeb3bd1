"""Late MLPs that suppress the target, and suppress it less after an ablation (§2.5.2)."""

import xarray as xr

from hydrascope.measures.bootstrap import Bootstrap, interval
from hydrascope.measures.effects_type import Effects, takes_effects
from hydrascope.measures.labels import block_numbers, depth, of_kind
from hydrascope.utils.errors import HydrascopeError


@takes_effects
def erasure(effects: Effects, ablated: str, late: float = 0.5, bootstrap: Bootstrap | None = None) -> xr.Dataset:
    """Measure the erasure by late MLPs downstream of one ablation, and its attenuation.

    An MLP erases if its mean direct effect over prompts is negative. The ablation attenuates it if that mean rises.

    >>> attenuation = hs.measures.erasure(effects, "attn.3")["attenuation"]

    Args:
        effects: on one readout.
        ablated: the label of the ablation.
        late: the share of the network's depth from which on an MLP is late.
        bootstrap: how intervals are drawn.

    Returns:
        - `unembed`, `change` [bound, component]: the mean direct effect of each late MLP, and its mean change, in the
          readout's unit;
        - `erasing` [bound]: the number of MLPs that erase;
        - `attenuated` [bound]: the number of these that the ablation attenuates;
        - `attenuation` [bound]: the share by which the erasure of all erasing MLPs together shrinks, NaN if none
          erases.

    Raises:
        HydrascopeError: these results don't hold the ablation.
    """
    if ablated not in effects["ablated"].values:
        raise HydrascopeError(f"{ablated} wasn't ablated in this run: name a component that was")
    first = late * depth(effects)
    mlps = of_kind(effects.data[["unembed", "unembed_ablated", "downstream"]].sel(ablated=ablated), "component", "mlp")
    chosen = [
        bool(downstream) and block >= first
        for block, downstream in zip(block_numbers(mlps["component"]), mlps["downstream"].values, strict=True)
    ]
    mlps = mlps.isel(component=chosen).reset_coords(drop=True)
    samples = xr.Dataset({"unembed": mlps["unembed"], "change": mlps["unembed_ablated"] - mlps["unembed"]})

    def measure(means: xr.Dataset) -> xr.Dataset:
        unembed, change = means["unembed"], means["change"]
        # Comparisons with NaN are False: an MLP without a value must not pass for one that doesn't erase.
        known = (unembed.notnull() & change.notnull()).all("component")
        erases = unembed < 0
        erased = -unembed.where(erases, 0).sum("component")
        return xr.Dataset(
            {
                "unembed": unembed,
                "change": change,
                "erasing": erases.sum("component").where(known),
                "attenuated": (erases & (change > 0)).sum("component").where(known),
                "attenuation": (change.where(erases, 0).sum("component") / erased.where(erased > 0)).where(known),
            }
        )

    return interval(measure, samples, bootstrap or Bootstrap())
