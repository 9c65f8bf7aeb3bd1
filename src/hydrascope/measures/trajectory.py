"""Self-repair over the checkpoints of one model."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from hydrascope.components.component import SUBLAYER_KINDS, SublayerKind
from hydrascope.measures.bootstrap import Bootstrap, Statistic, interval
from hydrascope.measures.effects import require_complete, with_direct_effect
from hydrascope.measures.effects_per_prompt import per_prompt
from hydrascope.measures.effects_type import Effects, Sigma
from hydrascope.measures.labels import kinds
from hydrascope.measures.questions import three_answers
from hydrascope.measures.regression import compensation_regression, least_squares
from hydrascope.measures.restoration import outcome, outcome_bounds
from hydrascope.utils.errors import HydrascopeError

#: The numbers over which the median of the sublayers that write is taken.
MEDIANS = ("removed", "restored", "restored_slope")


def trajectory(
    results: Mapping[str, xr.Dataset],
    bootstrap: Bootstrap | None = None,
    readout: str | None = None,
    sigma: Sigma | None = None,
) -> xr.Dataset:
    """Return what ablations remove and what is restored, over the checkpoints of one model.

    All checkpoints are resampled alike, since they have the same prompts.

        >>> few = hs.measures.Bootstrap(resamples=50)
        >>> found = hs.measures.trajectory({"step1": results, "step2": results}, few)
        >>> found["restored_slope"].dims
        ('bound', 'checkpoint', 'ablated')

    Args:
        results: the finished results of the checkpoints by name, in the order in which they are shown: of the same
            prompts and ablations (`hydrascope.analyses.trajectory`).
        bootstrap: how intervals are drawn.
        readout: the readout's label; by default the first.
        sigma: the reading of σ, as in `per_prompt`.

    Returns:
        each [bound, checkpoint, ablated]:

        - `removed` = −mean direct and `lost` = −mean total, in the readout's unit;
        - `restored` = 1 − lost/removed, NaN where `removed` isn't surely above 0;
        - `restored_slope`, the slope of total − direct on −direct over prompts;
        - `compensation_slope`, the slope of CE on DE over prompts; NaN where the component wasn't read.

        By kind of sublayer, since the sum over sublayers of opposite effects says little:

        - `writes` [checkpoint, ablated]: whether the sublayer surely writes for the readout, as in `three_answers`;
          false for all other components and where nothing is downstream;
        - `writers` [checkpoint, kind]: the number of these;
        - `median_removed`, `median_restored` and `median_restored_slope` [bound, checkpoint, kind]: medians over
          these, of `restored` over those that have it; NaN where there are none.

    Raises:
        HydrascopeError: there are no results; one is no result or unfinished; or their prompts, ablations or components
            differ.
    """
    if not results:
        raise HydrascopeError("there is no trajectory of no results: give at least one")
    bootstrap = bootstrap or Bootstrap()
    effects = {name: _read(name, each, readout, sigma) for name, each in results.items()}
    _require_alike(effects)
    found = [_of_checkpoint(each, bootstrap) for each in effects.values()]
    last = list(effects.values())[-1]
    dataset = xr.concat(found, xr.Variable("checkpoint", np.array(list(results), object)), join="exact")
    return dataset.transpose("bound", "checkpoint", ...).assign_attrs(last.data.attrs)


def _read(name: str, results: xr.Dataset, readout: str | None, sigma: Sigma | None) -> Effects:
    """Return the effects of one checkpoint; errors name it."""
    try:
        effects = per_prompt(results, readout, sigma)
        require_complete(effects)
    except HydrascopeError as error:
        raise HydrascopeError(f"{name}: {error}") from error
    return effects


def _require_alike(effects: Mapping[str, Effects]) -> None:
    """Refuse results that don't measure the same on the same prompts."""
    (first, expected), *others = effects.items()
    for name, each in others:
        for attribute, meaning in {"tokens_hash": "tokens", "ablation": "ablation", "positions": "positions"}.items():
            if each.data.attrs.get(attribute) != expected.data.attrs.get(attribute):
                raise HydrascopeError(f"{name} has other {meaning} than {first}: measure all checkpoints alike")
        for dim, meaning in {"ablated": "ablations", "component": "components"}.items():
            if list(each[dim].values) != list(expected[dim].values):
                raise HydrascopeError(f"{name} has other {meaning} than {first}: measure all checkpoints alike")


def _of_checkpoint(effects: Effects, bootstrap: Bootstrap) -> xr.Dataset:
    """Return `trajectory` of one checkpoint, without its dimension."""
    bounds = outcome_bounds(effects, bootstrap)
    sure = bounds["removed"].sel(bound="low", drop=True) > 0
    fit, moments = least_squares(outcome(effects)["removed"], outcome(effects)["restored"])
    # Coordinates lose their types where components that weren't read are filled in.
    read = compensation_regression(with_direct_effect(effects), bootstrap)["slope"].reset_coords(drop=True)
    found = xr.Dataset(
        {
            "removed": bounds["removed"],
            "lost": bounds["lost"],
            "restored": bounds["share"].where(sure),
            "restored_slope": interval(fit, moments, bootstrap)["slope"],
            "compensation_slope": read.reindex(ablated=effects["ablated"].values),
        }
    )
    asked = [kind for kind in SUBLAYER_KINDS if kind in kinds(effects["ablated"])]
    writers = {kind: _writers(effects, kind, bootstrap) for kind in asked}
    labels = [str(label) for label in effects["ablated"].values]
    writing = [any(label in of_kind for of_kind in writers.values()) for label in labels]
    by_kind = [_medians(effects, writers[kind], sure, bootstrap) for kind in asked]
    medians = xr.concat(by_kind, xr.Variable("kind", np.array(asked, object))) if by_kind else xr.Dataset()
    counts = np.array([len(writers[kind]) for kind in asked], int)
    own = [name for name, coord in effects["ablated"].coords.items() if coord.dims == ("ablated",)]
    return xr.merge([found, medians], compat="override", join="exact").assign(
        writes=("ablated", np.array(writing, bool)), writers=("kind", counts)
    ).drop_vars([name for name in found.coords if name not in (*own, "bound")], errors="ignore")


def _writers(effects: Effects, kind: SublayerKind, bootstrap: Bootstrap) -> list[str]:
    """Return the labels of the sublayers of a kind that surely write for the readout."""
    _, by_prompt, _ = three_answers(effects, kind, bootstrap)
    return [each.ablated for each in by_prompt.each if each.asked]


def _medians(effects: Effects, chosen: list[str], sure: xr.DataArray, bootstrap: Bootstrap) -> xr.Dataset:
    """Return the medians of `MEDIANS` over some ablations, each [bound]."""
    samples = outcome(effects).sel(ablated=chosen)
    fit, moments = least_squares(samples["removed"], samples["restored"])
    amounts = interval(_median_amounts(sure.sel(ablated=chosen)), samples, bootstrap)
    slopes = interval(lambda means: fit(means)[["slope"]].median("ablated"), moments, bootstrap)
    medians = amounts.assign(restored_slope=slopes["slope"])
    return medians.rename({name: f"median_{name}" for name in MEDIANS})


def _median_amounts(sure: xr.DataArray) -> Statistic:
    """Return the medians of what is removed and of the shares restored where there are any."""

    def statistic(means: xr.Dataset) -> xr.Dataset:
        shares = (means["restored"] / means["removed"].where(means["removed"] != 0)).isel(ablated=sure.values)
        return xr.Dataset({"removed": means["removed"].median("ablated"), "restored": shares.median("ablated")})

    return statistic
