"""How repair goes with depth, in a few numbers (§2.5, Figure 7d)."""

import numpy as np
import xarray as xr

from hydrascope.components.component import SublayerKind
from hydrascope.measures.bootstrap import Bootstrap, interval
from hydrascope.measures.compensation import compensable, compensation
from hydrascope.measures.effects import direct_effect
from hydrascope.measures.effects_type import Effects, takes_effects
from hydrascope.measures.held_out_selection import MIN_SHARE
from hydrascope.measures.labels import block_numbers, depth, of_kind
from hydrascope.measures.regression import holds_from, least_squares
from hydrascope.utils.errors import HydrascopeError


@takes_effects
def repair_profile(effects: Effects, kind: SublayerKind = "attn", bootstrap: Bootstrap | None = None) -> xr.Dataset:
    """The regression of CE on DE over depth, in a few numbers with confidence intervals.

    Args:
        kind: the kind of the ablated layers; those with nothing downstream are left out.

    Returns:
        each [bound]: `best`, the layer that `best_sublayer` chooses; `partial`, the number of layers with a slope
        below 1; `partial_from`, the first layer from which on all slopes are below 1, the number of the
        network's layers if there is none; `repairing`, the number of layers with a slope above 0; `slopes`,
        of how many (a layer whose direct effect doesn't vary has none). NaN where no layer has an R², or a
        value is no number.

    Raises:
        HydrascopeError: no such layer was ablated.
    """
    chosen = of_kind(effects.isel(ablated=compensable(effects).values), "ablated", kind)
    if not chosen.sizes["ablated"]:
        raise HydrascopeError(f"no {kind} layer was ablated that has anything downstream")
    positions = np.array(block_numbers(chosen["ablated"]))
    fit, samples = least_squares(direct_effect(chosen), compensation(chosen)["compensation"])
    # As `best_sublayer` chooses: among what removes something, and is compensated for the more the more it does.
    samples = samples.assign(removed=-chosen["direct"], size=abs(chosen["logit"]))

    def profile(means: xr.Dataset) -> xr.Dataset:
        lines = fit(means)
        r2, slope = lines["r2"], lines["slope"]
        has_slope = slope.notnull()
        known = means["xy"].notnull().all("ablated")
        candidate = (means["removed"] > MIN_SHARE * means["size"]) & (slope > 0)
        best = xr.DataArray(positions[r2.where(candidate).fillna(-1).argmax("ablated").values], dims=known.dims)
        return xr.Dataset(
            {
                "best": best.where(known & candidate.any("ablated")),
                "partial": (slope < 1).sum("ablated").where(known),
                "partial_from": holds_from(~(slope >= 1), positions, depth(effects)).where(
                    known & has_slope.any("ablated")
                ),
                "repairing": (slope > 0).sum("ablated").where(known),
                "slopes": has_slope.sum("ablated").where(known),
            }
        )

    return interval(profile, samples, bootstrap or Bootstrap())
