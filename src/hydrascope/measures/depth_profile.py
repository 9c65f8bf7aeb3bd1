"""Numbers that sum up repair over depth (§2.5, Figure 7d)."""

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
    """Sum up the regressions of CE on DE over depth, with confidence intervals.

    >>> profile = hs.measures.repair_profile(effects, "attn")

    Args:
        effects: on one readout.
        kind: the kind of the ablated sublayers; those with nothing downstream are left out.
        bootstrap: how intervals are drawn.

    Returns:
        each [bound], NaN where no sublayer has an R² or a value is not finite:

        - `best`: the block of the sublayer that `best_sublayer` chooses;
        - `partial`: the number of sublayers with a slope below 1;
        - `partial_from`: the first block from which on all slopes are below 1, or the number of blocks if there is
          none;
        - `repairing`: the number of sublayers with a slope above 0;
        - `slopes`: the number of sublayers with a slope; one with a constant direct effect has none.

    Raises:
        HydrascopeError: no such sublayer was ablated.
    """
    chosen = of_kind(effects.isel(ablated=compensable(effects).values), "ablated", kind)
    if not chosen.sizes["ablated"]:
        raise HydrascopeError(f"no ablated {kind} sublayer has anything downstream: ablate sublayers of earlier blocks")
    blocks = np.array(block_numbers(chosen["ablated"]))
    fit, samples = least_squares(direct_effect(chosen), compensation(chosen)["compensation"])
    # `best_sublayer` chooses among sublayers that remove more than a threshold and have a positive slope.
    samples = samples.assign(removed=-chosen["direct"], size=abs(chosen["logit"]))

    def profile(means: xr.Dataset) -> xr.Dataset:
        lines = fit(means)
        r2, slope = lines["r2"], lines["slope"]
        has_slope = slope.notnull()
        known = means["xy"].notnull().all("ablated")
        candidate = (means["removed"] > MIN_SHARE * means["size"]) & (slope > 0)
        best = xr.DataArray(blocks[r2.where(candidate).fillna(-1).argmax("ablated").values], dims=known.dims)
        return xr.Dataset(
            {
                "best": best.where(known & candidate.any("ablated")),
                "partial": (slope < 1).sum("ablated").where(known),
                "partial_from": holds_from(~(slope >= 1), blocks, depth(effects)).where(
                    known & has_slope.any("ablated")
                ),
                "repairing": (slope > 0).sum("ablated").where(known),
                "slopes": has_slope.sum("ablated").where(known),
            }
        )

    return interval(profile, samples, bootstrap or Bootstrap())
