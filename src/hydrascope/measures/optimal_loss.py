"""Is the constant of optimal ablation better than zero and the mean on other prompts?"""

import xarray as xr

from hydrascope.measures.bootstrap import Bootstrap, interval, simultaneous
from hydrascope.utils.errors import HydrascopeError


def optimal_against(results: xr.Dataset, bootstrap: Bootstrap | None = None) -> xr.Dataset:
    """Return how much less the fitted constants change the output than zero and the mean.

        >>> results = hs.sweep(model, prompts, hs.Optimal(), ablate="attn")                    # doctest: +SKIP
        >>> hs.measures.optimal_against(results)["gain"]                                       # doctest: +SKIP

    Args:
        results: of a run with optimal ablation.
        bootstrap: how bounds are drawn.

    Returns:
        in nats, or squared logits with the loss `squared`: `loss` [bound, fitted, written], the mean loss over prompts
        by vectors of the other half, with a bound for each; `gain` [bound, fitted, against], that of `zero` and `mean`
        minus that of the fitted vector, with bounds that hold for all components at once.

    Raises:
        HydrascopeError: the results are of another ablation.
    """
    if "optimal_loss" not in results:
        raise HydrascopeError("these results are of another ablation than optimal: they hold no fitted constants")
    bootstrap = bootstrap or Bootstrap()
    losses = results["optimal_loss"].astype(float).reset_coords(drop=True)
    others = losses.sel(written=["zero", "mean"]).rename(written="against")
    gains = (others - losses.sel(written="optimal", drop=True)).to_dataset(name="gain")
    each = losses.to_dataset(name="loss").stack(each=("fitted", "written"))
    found = simultaneous(_unchanged, gains.stack(each=("fitted", "against")), bootstrap, "each").unstack("each")
    of_each = interval(_unchanged, each, bootstrap).unstack("each")
    order = {"fitted": losses["fitted"].values}
    return xr.merge([found.sel(order), of_each.sel(order)])


def _unchanged(means: xr.Dataset) -> xr.Dataset:
    return means
