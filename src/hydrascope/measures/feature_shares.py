"""Shares of a response and of a restoration that parts of a dictionary carry."""

import xarray as xr

from hydrascope.measures.bootstrap import Bootstrap, interval, simultaneous
from hydrascope.measures.effects_per_prompt import select_readout
from hydrascope.utils.errors import HydrascopeError


def feature_shares(found: xr.Dataset, readout: str | None = None, bootstrap: Bootstrap | None = None) -> xr.Dataset:
    """Return the shares of the parts of a sublayer in its response and in what it restores.

        >>> shares = hs.measures.feature_shares(found)                           # doctest: +SKIP
        >>> shares["response_share"].sel(ablated="attn.3", part="features")      # doctest: +SKIP

    Args:
        found: the result of `hydrascope.analyses.features`.
        readout: the readout's label; by default the first.
        bootstrap: how bounds are drawn.

    Returns:
        each [bound, ablated, part]:

        - `response` and `restored_by`, means in the readout's unit, with bounds that hold for all ablations and parts
          at once (`simultaneous`);
        - `response_share`, the mean response of a part divided by that of its sublayer; the parts add up to 1, except
          at `heads` where a bias and a norm follow: the norm's scale changes what the bias writes;
        - `restored_share`, what freezing a part takes away again, divided by what freezing the sublayer takes away; the
          parts need not add up.

        Each share has an interval of its own. It is NaN where the sublayer's own mean is not surely different from 0.

    Raises:
        HydrascopeError: it is another result, or there is no such readout.
    """
    if "feature_response" not in found:
        raise HydrascopeError("this is no result of hydrascope.analyses.features: give one")
    chosen, bootstrap = select_readout(found, readout), bootstrap or Bootstrap()
    samples = chosen[["response", "restored_by"]].reset_coords(drop=True)
    flat = samples.stack(each=("ablated", "part"), create_index=False).drop_vars(("ablated", "part"))
    means = simultaneous(lambda means: means, flat, bootstrap, "each")
    shape = {"ablated": samples["ablated"].values, "part": samples["part"].values}

    def unfold(values: xr.DataArray) -> xr.DataArray:
        sizes = [len(each) for each in shape.values()]
        return xr.DataArray(values.values.reshape(3, *sizes), dims=("bound", *shape), coords={"bound": values["bound"]})

    bounds = xr.Dataset({name: unfold(each) for name, each in means.items()}).assign_coords(shape)
    shares = interval(_shares, samples, bootstrap)
    whole = bounds.sel(part="sublayer", drop=True)
    known = (whole.sel(bound="low", drop=True) > 0) | (whole.sel(bound="high", drop=True) < 0)
    shares = shares.where(known)
    named = {"response_share": shares["response"], "restored_share": shares["restored_by"]}
    return bounds.assign({name: each.transpose("bound", "ablated", "part") for name, each in named.items()})


def _shares(means: xr.Dataset) -> xr.Dataset:
    """Return the mean of each part, divided by that of its sublayer."""
    whole = means.sel(part="sublayer", drop=True)
    return means / whole.where(whole != 0)
