"""The fate of an ablated effect: made up for by attention, MLPs or the norm, or lost."""

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

#: Effects below this share of the readout may be rounding.
ROUNDING = 64 * float(np.finfo(np.float32).eps)
#: The parts of `restored`.
PARTS = ("attention", "mlp", "norm")


@takes_effects
def restoration(effects: Effects, bootstrap: Bootstrap | None = None) -> xr.Dataset:
    """Return the shares of an ablated effect that are restored and lost, per ablation.

    *Removed* is −`direct`, the loss if nothing responds; *lost* is −`total`, the loss in the end. Both use the model's
    own final norm, so `restored` and `lost` don't depend on how σ is read. The balance total = own change + CE + norm
    splits the restored effect: total − direct = CE + norm − (direct − own change). The last bracket is the norm's
    reaction to the ablated component alone, with the rest of the network frozen. With σ own, `attention` and `mlp`
    include the rescaling of what they write; with σ clean it is part of `norm`.

    >>> restored = hs.measures.restoration(effects)["restored"].sel(bound="estimate")

    Args:
        effects: on one readout.
        bootstrap: how intervals are drawn.

    Returns:
        each [bound, ablated], without unit:

        - `lost` = lost/removed, and `restored` = 1 − lost/removed;
        - `attention`, `mlp` and `norm`, which add up to `restored`: the shares due to downstream sublayers of either
          kind, and to the final norm's reaction to them (Rushing & Nanda 2024);
        - `restored_slope`, the slope of total − direct on −direct over prompts;
        - `compensated` = mean CE over mean DE, to compare with the slope of `compensation_regression`; NaN if the
          ablated component wasn't read.

        All but the slope are ratios of means over prompts, which prompts with little effect can't dominate. They are
        NaN if the denominator is 0. Bounds are NaN if the denominator's interval contains 0, since the ratio's interval
        is then unbounded (Fieller 1954). `attention`, `mlp`, `norm` and `compensated` are NaN where CE is: see
        `compensation`.
    """
    return budget_shares(budget(effects), bootstrap or Bootstrap())


@takes_effects
def outcome(effects: EffectsOnly) -> xr.Dataset:
    """Return the removed, lost and restored effect of each ablation on each prompt.

    >>> mean = hs.measures.outcome(hs.measures.effects_only(results)).mean("prompt")

    Args:
        effects: on one readout.

    Returns:
        `removed` = −`direct`, `lost` = −`total` and `restored` = removed − lost: each [prompt, ablated], in the
        readout's unit. `removed` is exactly 0 where on no prompt it is more than rounding: a share or a slope of
        rounding may have any size.
    """
    removed = without_rounding(-effects["direct"], effects["logit"])
    return xr.Dataset({"removed": removed, "lost": -effects["total"], "restored": effects["total"] + removed})


def without_rounding(effect: xr.DataArray, readout: xr.DataArray) -> xr.DataArray:
    """Return an effect [prompt, …], exactly 0 where on no prompt it is more than rounding.

    Args:
        effect: in the unit of the readout.
        readout: the readout of the clean pass, [prompt].
    """
    largest = abs(effect).max("prompt", skipna=False)
    return effect.where(~(largest <= ROUNDING * abs(readout).max("prompt", skipna=False)), 0)


@takes_effects
def budget(effects: Effects) -> xr.Dataset:
    """Return the effects whose ratios of means `restoration` returns.

    >>> mean = hs.measures.budget(effects).mean("prompt")

    Args:
        effects: on one readout.

    Returns:
        `removed`, `lost` and `restored` = removed − lost; `attention`, `mlp` and `norm`, which add up to `restored`;
        `compensated` = CE and `contribution` = DE. Each [prompt, ablated], in the readout's unit.
    """
    changes = compensation(effects).rename(compensation="compensated")
    norm = effects["norm"] - (effects["direct"] - own_change(effects))
    return changes.assign(outcome(effects)).assign(norm=norm, contribution=effects["contribution"])


def budget_shares(samples: xr.Dataset, bootstrap: Bootstrap) -> xr.Dataset:
    """Return `restoration` from `budget`, of all prompts or of some.

    >>> samples = hs.measures.budget(effects).isel(prompt=[0, 1, 2, 3])
    >>> shares = hs.measures.budget_shares(samples, hs.measures.Bootstrap())

    Args:
        samples: the variables of `budget`, [prompt, …].
        bootstrap: how intervals are drawn.

    Returns:
        the variables of `restoration`, each [bound, …].
    """
    numerators = [*PARTS, "restored", "lost"]

    def ratios(means: xr.Dataset) -> xr.Dataset:
        removed, contribution = (means[name].where(means[name] != 0) for name in ("removed", "contribution"))
        compensated = means["compensated"] / contribution
        return (means[numerators] / removed).assign(
            compensated=compensated, removed=means["removed"], contribution=means["contribution"]
        )

    shares = interval(ratios, samples, bootstrap)
    return drop_unbounded(shares[numerators], shares["removed"]).assign(
        compensated=drop_unbounded(shares["compensated"], shares["contribution"]),
        restored_slope=regression(samples["removed"], samples["restored"], bootstrap)["slope"],
    )


def drop_unbounded(ratio: Ratio, denominator: xr.DataArray) -> Ratio:
    """Return `ratio` with NaN as bounds where the interval of `denominator` contains 0.

    Args:
        ratio: [bound, …].
        denominator: [bound, …].
    """
    _, low, high = denominator.transpose("bound", ...)
    return ratio.where((low * high > 0) | (ratio["bound"] == "estimate"))


def effects_only(results: xr.Dataset, readout: str | None = None) -> EffectsOnly:
    """Return the effects on one readout, averaged over patches, in float64, from any result.

    It needs no direct effects of components, so it also reads results that keep effects only.

    >>> total = hs.measures.effects_only(results)["total"]

    Args:
        results: of a run.
        readout: its label; by default the first.

    Returns:
        effects whose `data` are `total` and `direct` [prompt, ablated] and `logit` [prompt], in the readout's unit, and
        `logit_twin` [prompt] of an ablation `counterfactual`, with the coordinates and attributes of `results`, and the
        attributes `readout` and `readout_before`.

    Raises:
        HydrascopeError: the dataset is no result of a run, lacks a dimension of one, or has no such readout.
    """
    chosen = select_readout(results, readout)
    require_dimensions(chosen, ("total", "direct", "logit"))
    means = {name: chosen[name].mean("patch", dtype=np.float64, skipna=False) for name in ("total", "direct")}
    logits = {name: chosen[name].astype(np.float64) for name in ("logit", "logit_twin") if name in chosen}
    data = xr.Dataset({**means, **logits}).transpose("prompt", "ablated")
    named = [name for name, coord in chosen.coords.items() if {*coord.dims} & {"prompt", "ablated", "component"}]
    name, before = str(chosen["readout"].values), int(chosen["readout_before"])
    data = data.assign_coords(chosen.coords.to_dataset()[named].coords)
    data = data.assign_attrs({**results.attrs, "readout": name, "readout_before": before})
    return EffectsOnly(readout=name, readout_before=before, data=data)


@takes_effects
def outcome_bounds(effects: EffectsOnly, bootstrap: Bootstrap) -> xr.Dataset:
    """Return the means of `outcome` over prompts and the share restored, with intervals.

    >>> share = hs.measures.outcome_bounds(effects, hs.measures.Bootstrap())["share"]

    Args:
        effects: on one readout.
        bootstrap: how intervals are drawn.

    Returns:
        `removed`, `lost` and `restored`, in the readout's unit, and `share` = restored/removed, each [bound, ablated].
        `share` is NaN if nothing is removed; its bounds are NaN if the interval of `removed` contains 0.
    """

    def statistic(means: xr.Dataset) -> xr.Dataset:
        return means.assign(share=means["restored"] / means["removed"].where(means["removed"] != 0))

    bounds = interval(statistic, outcome(effects), bootstrap)
    return bounds.assign(share=drop_unbounded(bounds["share"], bounds["removed"]))
