"""Where the effect that an ablation takes away goes: repaired by attention, by MLPs, by the norm, or lost."""

from typing import TypeVar

import numpy as np
import xarray as xr

from hydrascope.measures.bootstrap import Bootstrap, interval
from hydrascope.measures.compensation import compensation
from hydrascope.measures.effects import own_change
from hydrascope.measures.effects_per_prompt import require_dimensions, select_readout
from hydrascope.measures.effects_type import Effects, EffectsOnly, takes_effects
from hydrascope.measures.regression import regression

Ratio = TypeVar("Ratio", xr.DataArray, xr.Dataset)

#: What `restored` is made of.
PARTS = ("attention", "mlp", "norm")


@takes_effects
def restoration(effects: Effects, bootstrap: Bootstrap | None = None) -> xr.Dataset:
    """What becomes of the effect that an ablation takes away, per ablated part.

    *Removed* is −`direct`, what the ablation takes away where nothing answers to it; *lost* is −`total`, what is
    missing in the end. Both are the model's own, its final norm recomputed, so `restored` and `lost` don't depend on
    how σ is read. What `restored` is made of follows from the balance, total = own change + CE + norm, so that
    total − direct = CE + norm − (direct − own change). What the last bracket takes off is what the norm would
    do in answer to the ablated part alone, the rest of the network held. Read with σ own, what attention and MLPs
    bring holds the rescaling of what they write, which with σ clean is the norm's.

        restoration(effects)["restored"].sel(bound="estimate")

    Returns:
        `restored` = 1 − lost/removed, and `attention`, `mlp` and `norm`, which add up to it: what downstream layers
        of either kind bring, and what the final norm does because they answer (Rushing & Nanda 2024); `lost` =
        lost/removed. `restored_slope`, of total − direct regressed on −direct. `compensated` = mean CE over mean DE,
        the ratio that the slope of `compensation_regression` is to be compared with, NaN where the ablated part
        wasn't read. Each [bound, ablated], without unit, all but the slope a ratio of means over prompts: not a mean
        of ratios, which a prompt with no effect would govern. NaN where the mean below the line is 0. Without
        bounds, NaN, where the confidence interval of that mean holds 0: the ratio's is then unbounded (Fieller
        1954). `attention`, `mlp`, `norm` and `compensated` are NaN where CE is: see `compensation`.
    """
    return budget_shares(budget(effects), bootstrap or Bootstrap())


@takes_effects
def outcome(effects: EffectsOnly) -> xr.Dataset:
    """What becomes of the effect of each ablated part on each prompt, whether or not it is known by whom.

    Returns:
        `removed` = −`direct`, `lost` = −`total` and `restored`, their difference: each [prompt, ablated].
    """
    return xr.Dataset(
        {
            "removed": -effects["direct"],
            "lost": -effects["total"],
            "restored": effects["total"] - effects["direct"],
        }
    )


@takes_effects
def budget(effects: Effects) -> xr.Dataset:
    """What becomes of the effect of each ablated part on each prompt, in logits: what `restoration` is the shares of.

    Returns:
        `removed`, `lost`, `restored` = removed − lost, of which `attention`, `mlp` and `norm` are the parts;
        `compensated` = CE and `contribution` = DE. Each [prompt, ablated].
    """
    found = compensation(effects).rename(compensation="compensated")
    norm = effects["norm"] - (effects["direct"] - own_change(effects))
    return found.assign(outcome(effects)).assign(norm=norm, contribution=effects["contribution"])


def budget_shares(samples: xr.Dataset, bootstrap: Bootstrap) -> xr.Dataset:
    """`restoration` of `budget`, of all prompts or of some, [prompt, …]."""
    of_removed = [*PARTS, "restored", "lost"]

    def ratios(means: xr.Dataset) -> xr.Dataset:
        removed, contribution = (means[name].where(means[name] != 0) for name in ("removed", "contribution"))
        compensated = means["compensated"] / contribution
        return (means[of_removed] / removed).assign(
            compensated=compensated, removed=means["removed"], contribution=means["contribution"]
        )

    found = interval(ratios, samples, bootstrap)
    return drop_unbounded(found[of_removed], found["removed"]).assign(
        compensated=drop_unbounded(found["compensated"], found["contribution"]),
        restored_slope=regression(samples["removed"], samples["restored"], bootstrap)["slope"],
    )


def drop_unbounded(ratio: Ratio, below: xr.DataArray) -> Ratio:
    """`ratio` [bound, …], its bounds kept only where the bounds of what is below its line have one sign."""
    _, low, high = below.transpose("bound", ...)
    return ratio.where((low * high > 0) | (ratio["bound"] == "estimate"))


def effects_only(results: xr.Dataset, readout: str | None = None) -> EffectsOnly:
    """The effects on one readout, averaged over patches, of any result, whatever else was kept; in float64.

        effects_only(hs.open_results("pairs.zarr"))["total"]

    Args:
        results: of a run.
        readout: its label; by default the first.

    Returns:
        effects whose `data` are `total` and `direct` [prompt, ablated] and `logit` [prompt], as those of
        `hydrascope.measures.per_prompt`, to which these add what parts write; with the coordinates of `results`, and
        its attributes besides `readout` and `readout_before`.

    Raises:
        HydrascopeError: the dataset is no result of a run, lacks a dimension of one, or has no such readout.
    """
    chosen = select_readout(results, readout)
    require_dimensions(chosen, ("total", "direct", "logit"))
    means = {name: chosen[name].mean("patch", dtype=np.float64, skipna=False) for name in ("total", "direct")}
    data = xr.Dataset({**means, "logit": chosen["logit"].astype(np.float64)}).transpose("prompt", "ablated")
    named = [name for name, coord in chosen.coords.items() if {*coord.dims} & {"prompt", "ablated", "component"}]
    name, before = str(chosen["readout"].values), int(chosen["readout_before"])
    data = data.assign_coords(chosen.coords.to_dataset()[named].coords)
    data = data.assign_attrs({**results.attrs, "readout": name, "readout_before": before})
    return EffectsOnly(readout=name, readout_before=before, data=data)


@takes_effects
def outcome_bounds(effects: EffectsOnly, bootstrap: Bootstrap) -> xr.Dataset:
    """The means of `outcome` over prompts, and `share`, the ratio of what is restored to what is removed.

    Returns:
        each [bound, ablated]. `share` is NaN where nothing is removed, and without bounds where that may be nothing.
    """

    def statistic(means: xr.Dataset) -> xr.Dataset:
        return means.assign(share=means["restored"] / means["removed"].where(means["removed"] != 0))

    found = interval(statistic, outcome(effects), bootstrap)
    return found.assign(share=drop_unbounded(found["share"], found["removed"]))
