"""The mean response of every sublayer to every ablation, in one result or between two."""

import xarray as xr

from hydrascope.measures.bootstrap import Bootstrap, simultaneous, simultaneous_difference
from hydrascope.measures.effects import change
from hydrascope.measures.effects_type import Effects, takes_effects
from hydrascope.utils.errors import HydrascopeError


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
    means = simultaneous(lambda means: means, _in_pairs(effects), bootstrap or Bootstrap(), "pair")["response"]
    return _unstacked(means, effects).where(effects["downstream"])


def response_difference(
    first: Effects, second: Effects, bootstrap: Bootstrap | None = None, *, paired: bool
) -> xr.DataArray:
    """Return the mean ΔDE in `second` less that in `first`, with bounds.

    >>> by_sigma = (hs.measures.per_prompt(results, sigma=sigma) for sigma in ("clean", "own"))
    >>> less = hs.measures.response_difference(*by_sigma, paired=True).sel(bound="estimate")

    Args:
        first: on one readout.
        second: of a network with the same components, which both ablate and read in the same order.
        bootstrap: how intervals are drawn.
        paired: whether both have the same prompts in the same order, which are then resampled together.

    Returns:
        `[bound, ablated, component]`, in the readout's unit, with bounds that hold for all at once; NaN for a
        sublayer that isn't downstream in both.

    Raises:
        HydrascopeError: their components differ.
    """
    for dim in ("ablated", "component"):
        if first[dim].values.tolist() != second[dim].values.tolist():
            raise HydrascopeError(f"the {dim} components differ: select the same of both, in the same order")
    samples = _in_pairs(first), _in_pairs(second)
    means = simultaneous_difference(*samples, bootstrap or Bootstrap(), "pair", paired=paired)["response"]
    downstream = first["downstream"].values & second["downstream"].values
    return _unstacked(means, first).where(first["downstream"].copy(data=downstream))


def _in_pairs(effects: Effects) -> xr.Dataset:
    """Return `response` [prompt, pair] of each ablation and sublayer; 0 if not downstream."""
    samples = change(effects).where(effects["downstream"], 0).transpose("prompt", "ablated", "component")
    stacked = samples.rename("response").to_dataset().stack(pair=("ablated", "component"), create_index=False)
    return stacked.reset_coords(drop=True)


def _unstacked(means: xr.DataArray, effects: Effects) -> xr.DataArray:
    """Return means [bound, pair] as [bound, ablated, component], with the effects' coordinates."""
    like = effects["unembed_ablated"]
    sizes = [like.sizes[dim] for dim in ("ablated", "component")]
    bounds = xr.DataArray(
        means.transpose("bound", "pair").values.reshape(means.sizes["bound"], *sizes),
        {name: coord for name, coord in like.coords.items() if "prompt" not in coord.dims},
        ("bound", "ablated", "component"),
        "response",
    )
    return bounds.assign_coords(bound=means["bound"])
