"""Does restoration rise or fall with how hard an ablation kicks the network?"""

import numpy as np
import xarray as xr

from hydrascope.measures.bootstrap import Bootstrap, difference, interval
from hydrascope.measures.effects_type import Effects, takes_effects
from hydrascope.measures.regression import regression
from hydrascope.measures.restoration import outcome, without_rounding
from hydrascope.utils.errors import HydrascopeError

#: The groups of prompts by their kick.
THIRDS = ("low", "middle", "high")


@takes_effects
def restoration_by_kick(effects: Effects, found: xr.Dataset, bootstrap: Bootstrap | None = None) -> xr.Dataset:
    """Return the restored slope within thirds of prompts by the kick of each ablation.

        >>> found = hs.analyses.distance(model, prompts, hs.Zero(), ablate="attn")             # doctest: +SKIP
        >>> hs.measures.restoration_by_kick(effects, found)["restored_slope"]                  # doctest: +SKIP

    Args:
        effects: the effects of a sweep of the same model, prompts and ablation.
        found: the result of `hydrascope.analyses.distance`.
        bootstrap: how bounds are drawn.

    Returns:
        without unit: `restored_slope` [bound, ablated, third], the slope of total − direct on −direct over the prompts
        of a third; `rise` [bound, ablated], that of the highest third minus that of the lowest; `control_slope` [bound,
        ablated], the slope over all prompts after random directions of the same size; `kick` [ablated, third], the
        median kick at the block after the ablated component's.

    Raises:
        HydrascopeError: the prompts or ablations differ, or there are fewer than 9 prompts.
    """
    bootstrap = bootstrap or Bootstrap()
    shared = ("model", "revision", "prompts_hash", "ablation", "positions", "seed", "patches")
    for name in shared:
        if effects.data.attrs.get(name) != found.attrs.get(name):
            raise HydrascopeError(f"the distances are of another {name} than the effects: measure both alike")
    if effects.readout not in found["readout"]:
        raise HydrascopeError(f"the distances have no control read on {effects.readout!r}: measure both alike")
    if found.sizes["prompt"] != effects.data.sizes["prompt"] or found.sizes["prompt"] < 9:
        raise HydrascopeError("thirds need the same prompts in effects and distances, at least 9")
    control, fate = found.sel(readout=effects.readout), outcome(effects)
    control_direct = without_rounding(control["control_direct"], effects["logit"])
    slopes, rises, kicks = [], [], []
    labels = [str(label) for label in found["ablated"].values]
    for label in labels:
        at = fate.sel(ablated=label)
        kick = found["kick"].sel(ablated=label, block=int(found["first_block"].sel(ablated=label))).values
        order = np.array_split(np.argsort(kick, kind="stable"), len(THIRDS))
        x, y = at["removed"].values, at["restored"].values
        x, y = x - x.mean(), y - y.mean()
        moments = {"x": x, "y": y, "xx": x * x, "xy": x * y}
        samples = [xr.Dataset({name: ("prompt", values[some]) for name, values in moments.items()}) for some in order]
        slopes.append(xr.concat([interval(_slope, each, bootstrap) for each in samples], "third")["slope"])
        rises.append(difference(_slope, samples[0], samples[2], bootstrap, paired=False)["slope"])
        kicks.append([float(np.median(kick[some])) for some in order])
    return xr.Dataset(
        {
            "restored_slope": xr.concat(slopes, "ablated").transpose("bound", "ablated", "third"),
            "rise": xr.concat(rises, "ablated").transpose("bound", "ablated"),
            "control_slope": regression(-control_direct, control["control_total"] - control_direct, bootstrap)[
                "slope"
            ].reset_coords(drop=True),
            "kick": (("ablated", "third"), np.array(kicks)),
        },
        {"ablated": labels, "third": list(THIRDS)},
    )


def _slope(means: xr.Dataset) -> xr.Dataset:
    """Return the least-squares slope from means of products."""
    variance = means["xx"] - means["x"] ** 2
    covariance = means["xy"] - means["x"] * means["y"]
    return (covariance / variance.where(variance > 0)).to_dataset(name="slope")
