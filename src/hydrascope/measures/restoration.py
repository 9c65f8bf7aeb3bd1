"""Where the effect that an ablation takes away goes: repaired by attention, by MLPs, by the norm, or lost."""

import xarray as xr

from hydrascope.measures.bootstrap import Bootstrap, interval
from hydrascope.measures.compensation import compensation
from hydrascope.measures.effects import average_patches, direct_effect, removed_effect


def restoration(results: xr.Dataset, bootstrap: Bootstrap | None = None) -> xr.Dataset:
    """Shares of the effect that an ablation takes away, per ablated layer.

    The books balance, −removed + CE + norm = total, so over the mean removed effect the means of its parts
    add up to one:

    Returns:
        `attention`, `mlp`: restored by downstream layers of that kind; `norm`: by the final norm's change of
        scale (Rushing & Nanda 2024); `lost`: what the output really loses, −total. The four add up to 1.
        Beside them `restored`: mean CE over mean direct effect, the ratio that the regression's slope is to
        be compared with. Each [bound, ablated], without unit, a ratio of means over prompts: not a mean of
        ratios, which a prompt with no effect would govern. NaN where the mean below the line is 0. Without bounds,
        NaN, where the confidence interval of that mean holds 0: the ratio's is then unbounded (Fieller 1954).
    """
    effects = average_patches(results)
    response = compensation(effects)
    samples = response.assign(
        norm=effects["norm"],
        lost=-effects["total"],
        removed=removed_effect(effects),
        direct=direct_effect(effects),
    )

    def shares(means: xr.Dataset) -> xr.Dataset:
        removed, direct = (means[name].where(means[name] != 0) for name in ("removed", "direct"))
        parts = {name: means[name] / removed for name in ("attention", "mlp", "norm", "lost")}
        return xr.Dataset({**parts, "restored": means["compensation"] / direct, "removed": removed, "direct": direct})

    found = interval(shares, samples, bootstrap or Bootstrap())
    ratios = dict.fromkeys(("attention", "mlp", "norm", "lost"), "removed") | {"restored": "direct"}
    return xr.Dataset({name: _bounded(found[name], found[below]) for name, below in ratios.items()})


def _bounded(ratio: xr.DataArray, below: xr.DataArray) -> xr.DataArray:
    """`ratio` [bound, …], its bounds kept only where the bounds of what is below its line have one sign."""
    one_sign = below.sel(bound="low") * below.sel(bound="high") > 0
    return ratio.where(one_sign | (ratio["bound"] == "estimate"))
