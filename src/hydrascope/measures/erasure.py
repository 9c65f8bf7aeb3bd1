"""Late MLPs that hold the target down, and let go when what they hold down is ablated (§2.5.2)."""

import xarray as xr

from hydrascope.measures.bootstrap import Bootstrap, interval
from hydrascope.measures.effects_type import Effects, takes_effects
from hydrascope.measures.labels import block_numbers, depth, of_kind
from hydrascope.utils.errors import HydrascopeError


@takes_effects
def erasure(effects: Effects, ablated: str, late: float = 0.5, bootstrap: Bootstrap | None = None) -> xr.Dataset:
    """The erasure of the late MLPs downstream of one ablated part, and what the ablation leaves of it.

    An MLP erases if its mean direct effect over prompts is negative. It is attenuated by the ablation if its
    mean direct effect rises.

    Args:
        ablated: the label of what is ablated.
        late: an MLP is late from this share of the network's depth on.

    Returns:
        per late MLP `unembed` and `change`, mean direct effect and its mean change, [bound, component], in
        logits; over them, [bound]: `erasing`, how many erase; `attenuated`, how many of these the ablation
        attenuates; `attenuation`, the share by which the erasure of the erasing MLPs together shrinks, NaN if
        none erases.

    Raises:
        HydrascopeError: `ablated` isn't ablated in these results.
    """
    if ablated not in effects["ablated"].values:
        raise HydrascopeError(f"{ablated} isn't among what this run ablated")
    first = late * depth(effects)
    mlps = of_kind(effects.data[["unembed", "unembed_ablated", "downstream"]].sel(ablated=ablated), "component", "mlp")
    chosen = [
        bool(below) and block >= first
        for block, below in zip(block_numbers(mlps["component"]), mlps["downstream"].values, strict=True)
    ]
    mlps = mlps.isel(component=chosen).reset_coords(drop=True)
    samples = xr.Dataset({"unembed": mlps["unembed"], "change": mlps["unembed_ablated"] - mlps["unembed"]})

    def measure(means: xr.Dataset) -> xr.Dataset:
        unembed, change = means["unembed"], means["change"]
        # NaN is neither below 0 nor not: it must not pass for a layer that doesn't erase.
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
