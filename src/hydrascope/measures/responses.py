"""The mean response of every sublayer to every ablation."""

import xarray as xr

from hydrascope.measures.bootstrap import Bootstrap, simultaneous
from hydrascope.measures.effects import change
from hydrascope.measures.effects_type import Effects, takes_effects


@takes_effects
def responses(effects: Effects, bootstrap: Bootstrap | None = None) -> xr.DataArray:
    """Return the mean ΔDE of each sublayer after each ablation, with bounds (Eq. 34).

    >>> estimate = hs.measures.responses(effects).sel(bound="estimate", ablated="attn.3")

    Args:
        effects: on one readout.
        bootstrap: how intervals are drawn.

    Returns:
        `[bound, ablated, component]`, in the readout's unit, with bounds that hold for all responses at once
        (`simultaneous`); NaN for a sublayer that isn't downstream.
    """
    samples = change(effects).where(effects["downstream"], 0).transpose("prompt", "ablated", "component")
    means = simultaneous(
        lambda means: means,
        samples.rename("response").to_dataset().stack(pair=("ablated", "component"), create_index=False),
        bootstrap or Bootstrap(),
        "pair",
    )["response"]
    shape = (means.sizes["bound"], *samples.shape[1:])
    bounds = xr.DataArray(
        means.transpose("bound", "pair").values.reshape(shape),
        {name: coord for name, coord in samples.coords.items() if "prompt" not in coord.dims},
        ("bound", "ablated", "component"),
        "response",
    )
    return bounds.assign_coords(bound=means["bound"]).where(effects["downstream"])
