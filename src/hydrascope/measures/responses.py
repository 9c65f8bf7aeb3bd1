"""Who answers to what: the mean response of every layer to every ablation."""

import xarray as xr

from hydrascope.measures.bootstrap import Bootstrap, simultaneous
from hydrascope.measures.effects import change
from hydrascope.measures.effects_type import Effects, takes_effects


@takes_effects
def responses(effects: Effects, bootstrap: Bootstrap | None = None) -> xr.DataArray:
    """The mean over prompts of ΔDE, what each layer writes more for the readout once a part is ablated (Eq. 34).

        >>> measures.responses(effects).sel(bound="estimate", ablated="attn.3")  # doctest: +SKIP

    Returns:
        `[bound, ablated, component]`, in logits, with bounds that hold for all responses at once (`simultaneous`); NaN
        of a layer that isn't downstream of what is ablated, and so can't respond.
    """
    samples = change(effects).where(effects["downstream"], 0).transpose("prompt", "ablated", "component")
    found = simultaneous(
        lambda means: means,
        samples.rename("response").to_dataset().stack(pair=("ablated", "component"), create_index=False),
        bootstrap or Bootstrap(),
        "pair",
    )["response"]
    shape = (found.sizes["bound"], *samples.shape[1:])
    bounds = xr.DataArray(
        found.transpose("bound", "pair").values.reshape(shape),
        {name: coord for name, coord in samples.coords.items() if "prompt" not in coord.dims},
        ("bound", "ablated", "component"),
        "response",
    )
    return bounds.assign_coords(bound=found["bound"]).where(effects["downstream"])
