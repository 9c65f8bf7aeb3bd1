"""Self-repair over the checkpoints of one model."""

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
import xarray as xr

from hydrascope.components.component import SUBLAYER_KINDS, SublayerKind
from hydrascope.measures.bootstrap import Bootstrap, interval
from hydrascope.measures.effects import complete_effects, with_direct_effect
from hydrascope.measures.effects_type import Effects, Sigma
from hydrascope.measures.labels import kinds
from hydrascope.measures.questions import three_answers
from hydrascope.measures.regression import compensation_regression, least_squares, regression
from hydrascope.measures.restoration import outcome, outcome_bounds
from hydrascope.utils.errors import HydrascopeError


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
        - `median_removed` and `median_restored_slope` [bound, checkpoint, kind]: medians over these;
        - `median_restored` [bound, checkpoint, kind]: the median over the sublayers that write and have a share in
          *every* checkpoint, `with_share` [checkpoint, kind] of them: with others in each, it would change by the
          choice alone.

        Medians of nothing are NaN.

    Raises:
        HydrascopeError: there are no results; one is no result or unfinished; or their prompts, ablations or components
            differ.
    """
    if not results:
        raise HydrascopeError("there is no trajectory of no results: give at least one")
    bootstrap = bootstrap or Bootstrap()
    effects = {name: complete_effects(name, each, readout, sigma) for name, each in results.items()}
    _require_alike(effects)
    found = {name: _of_checkpoint(each, bootstrap) for name, each in effects.items()}
    asked = [kind for kind in SUBLAYER_KINDS if kind in kinds(next(iter(effects.values()))["ablated"])]
    writers = {name: {kind: _writers(each, kind, bootstrap) for kind in asked} for name, each in effects.items()}
    shared = [
        label
        for label in map(str, next(iter(found.values()))["ablated"].values)
        if all(
            label in chain(*writers[name].values())
            and np.isfinite(each["restored"].sel(ablated=label, bound="estimate"))
            for name, each in found.items()
        )
    ]
    whole = [_with_kinds(each, effects[name], writers[name], shared, bootstrap) for name, each in found.items()]
    last = list(effects.values())[-1]
    dataset = xr.concat(whole, xr.Variable("checkpoint", np.array(list(results), object)), join="exact")
    return dataset.transpose("bound", "checkpoint", ...).assign_attrs(last.data.attrs)


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
    """Return the numbers of every ablation in one checkpoint, each [bound, ablated]."""
    bounds = outcome_bounds(effects, bootstrap)
    sure = bounds["removed"].sel(bound="low", drop=True) > 0
    samples = outcome(effects)
    # Coordinates lose their types where components that weren't read are filled in.
    read = compensation_regression(with_direct_effect(effects), bootstrap)["slope"].reset_coords(drop=True)
    found = xr.Dataset(
        {
            "removed": bounds["removed"],
            "lost": bounds["lost"],
            "restored": bounds["share"].where(sure),
            "restored_slope": regression(samples["removed"], samples["restored"], bootstrap)["slope"],
            "compensation_slope": read.reindex(ablated=effects["ablated"].values),
        }
    )
    return found.drop_vars(
        [name for name, coord in found.coords.items() if coord.dims not in (("ablated",), ("bound",))]
    )


def _writers(effects: Effects, kind: SublayerKind, bootstrap: Bootstrap) -> list[str]:
    """Return the labels of the sublayers of a kind that surely write for the readout."""
    _, by_prompt, _ = three_answers(effects, kind, bootstrap)
    return [each.ablated for each in by_prompt.each if each.asked]


def _with_kinds(
    found: xr.Dataset,
    effects: Effects,
    writers: Mapping[SublayerKind, list[str]],
    shared: Sequence[str],
    bootstrap: Bootstrap,
) -> xr.Dataset:
    """Add the sublayers that write, their numbers by kind, and the medians over them."""
    writing = [label in chain(*writers.values()) for label in map(str, found["ablated"].values)]
    found = found.assign(
        writes=("ablated", np.array(writing, bool)),
        writers=("kind", np.array([len(each) for each in writers.values()], int)),
    )
    if not writers:
        return found
    medians = [
        _medians(effects, chosen, [label for label in chosen if label in shared], bootstrap)
        for chosen in writers.values()
    ]
    by_kind = xr.concat(medians, xr.Variable("kind", np.array(list(writers), object)))
    counts = [sum(label in shared for label in chosen) for chosen in writers.values()]
    return xr.merge([found, by_kind], compat="override", join="exact").assign(
        with_share=("kind", np.array(counts, int))
    )


def _medians(effects: Effects, chosen: list[str], shared: list[str], bootstrap: Bootstrap) -> xr.Dataset:
    """Return the medians over `chosen` and, of what is restored, over `shared`, each [bound]."""
    samples = outcome(effects)
    writing, common = (samples.sel(ablated=labels).reset_coords(drop=True) for labels in (chosen, shared))
    fit, moments = least_squares(writing["removed"], writing["restored"])
    slopes = interval(lambda means: _median(fit(means)[["slope"]]), moments, bootstrap)
    return xr.Dataset(
        {
            "median_removed": interval(_median, writing[["removed"]], bootstrap)["removed"],
            "median_restored": interval(_median_share, common, bootstrap)["share"],
            "median_restored_slope": slopes["slope"],
        }
    )


def _median(means: xr.Dataset) -> xr.Dataset:
    return means.median("ablated")


def _median_share(means: xr.Dataset) -> xr.Dataset:
    return _median((means["restored"] / means["removed"].where(means["removed"] != 0)).to_dataset(name="share"))
