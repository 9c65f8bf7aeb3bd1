"""Mediation: the worth of each component's reaction to an ablation, beyond its response.

The response of d is the change of its direct effect when k is ablated. It doesn't say how much of the readout depends
on it, since other components read the output of d. So the reaction of d is taken away, or left alone, by freezing.
"""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from hydrascope.components.component import Component, Override
from hydrascope.components.experiments import MADE_BY, Mediated, ResultKind, result_kind
from hydrascope.components.network import Network
from hydrascope.measures.bootstrap import Bootstrap, mean_interval, simultaneous
from hydrascope.measures.effects_per_prompt import require_dimensions, select_readout
from hydrascope.utils.errors import HydrascopeError

_PAIR, _SINGLE = ("readout", "prompt", "ablated", "mediator"), ("readout", "prompt", "ablated")


def mediation(results: xr.Dataset) -> xr.Dataset:
    """Return the worth of each mediator's reaction to each ablation, necessary and sufficient.

    >>> run = hs.sweep(model, prompts, hs.Zero(), ablate=hs.Mediation("attn.3", mediators="mlp.4,mlp.5"))
    >>> mean = hs.measures.mediation(run)["restored_by"].mean("prompt")

    Args:
        results: of a run of `hydrascope.Mediation`.

    Returns:
        means over patches, in the readouts' units, for the ablated component k and the mediator d:

        - `restored_by` [readout, prompt, ablated, mediator] π̂^k − π̂^{k, d frozen}: the change of the readout by the
          reaction of d, direct or through others. Exactly 0 if d isn't downstream.
        - `restored_alone` (likewise) π̂^{k, all downstream frozen but d} − π̂^{k, all downstream frozen}: the same if
          only d reacts. This is path patching k → d → output with everything else frozen. If d is a head, the other
          heads of its sublayer are frozen.
        - `response` (likewise) `unembed_ablated` − `unembed` of d, at the clean pass's σ; NaN if d wasn't read, or its
          direct effects weren't kept.
        - `restored` [readout, prompt, ablated] π̂^k − π̂^{k, all downstream frozen}: the change by all reactions
          together.
        - `restored_together` (likewise) π̂^k − π̂^{k, all mediators frozen}: the change by all mediators together.
        - `total`, `direct` (likewise), for k alone.
        - `downstream` [ablated, mediator], whether d can react to k.

    Raises:
        HydrascopeError: the results are of another experiment, or incomplete.
    """
    results = of_experiment(results, "mediation")
    network = Network.of(results)
    components = [Component.parse(label) for label in str(results.attrs["mediators"]).split(",")]
    labels = list(map(str, results["ablated"].values))
    mediated = [Mediated.of(network, Override.parse(label), components) for label in labels if "|" not in label]
    row_of = {label: row for row, label in enumerate(labels)}
    if not mediated or any(str(override) not in row_of for one in mediated for override in one.overrides):
        raise HydrascopeError("overrides of the mediation are missing: give all its results, and select afterwards")
    rows = [row_of[str(one.override)] for one in mediated]
    means = results[["total", "direct"]].mean("patch", dtype=np.float64).transpose(*_SINGLE).compute()

    def total(override: Override) -> np.ndarray:
        return np.asarray(means["total"].values[..., row_of[str(override)]])

    pairs = {
        "restored_by": _pair_values(
            mediated, components, lambda one, component: total(one.override) - total(one.one_frozen[component])
        ),
        "restored_alone": _pair_values(
            mediated, components, lambda one, component: total(one.one_free[component]) - total(one.all_frozen)
        ),
        "response": _responses(results, rows, mediated, components),
    }
    singles = {
        "restored": [total(one.override) - total(one.all_frozen) for one in mediated],
        "restored_together": [total(one.override) - total(one.mediators_frozen) for one in mediated],
        **{name: [means[name].values[..., row] for row in rows] for name in ("total", "direct")},
    }
    return xr.Dataset(
        {
            **{name: (_PAIR, values) for name, values in pairs.items()},
            **{name: (_SINGLE, np.stack(values, -1)) for name, values in singles.items()},
            "downstream": (_PAIR[2:], _is_downstream(mediated, components)),
        },
        {
            "ablated": np.array([str(one.override) for one in mediated], object),
            "mediator": np.array([str(component) for component in components], object),
            **{name: results[name] for name in ("readout", "text", "target_text")},
        },
        results.attrs,
    )


def reactions(results: xr.Dataset, readout: str | None = None, bootstrap: Bootstrap | None = None) -> xr.Dataset:
    """Return the worth of each reaction in the mean over prompts, with bounds.

    >>> run = hs.sweep(model, prompts, hs.Zero(), ablate=hs.Mediation("attn.3", mediators="mlp.4,mlp.5"))
    >>> worth = hs.measures.reactions(run)["restored_by"].sel(ablated="attn.3", mediator="mlp.5")

    Args:
        results: of a run of `hydrascope.Mediation`.
        readout: its label; by default the first.
        bootstrap: how intervals are drawn.

    Returns:
        `restored_by` and `restored_alone` of `mediation`, with bounds that hold for all reactions at once
        (`simultaneous`), and `response`, with separate intervals. Each [bound, ablated, mediator], in the readout's
        unit; NaN if the mediator isn't downstream, or its response wasn't read.

    Raises:
        HydrascopeError: the results are of another experiment, or there is no such readout.
    """
    found, bootstrap = select_readout(mediation(results), readout), bootstrap or Bootstrap()
    samples = found[["restored_by", "restored_alone"]].transpose("prompt", "ablated", "mediator")
    flat = samples.stack(pair=("ablated", "mediator"), create_index=False)
    # A mediator that isn't downstream is 0 on every prompt, and makes no bound wider.
    sure = simultaneous(lambda means: means, flat, bootstrap, "pair").transpose("bound", "pair")
    shape = (-1, *samples["restored_by"].shape[1:])
    bounds = {name: (("bound", *_PAIR[2:]), sure[name].values.reshape(shape)) for name in samples}
    coordinates = {name: found[name] for name in ("ablated", "mediator")} | {"bound": sure["bound"]}
    each = xr.Dataset(bounds, coordinates).assign(response=mean_interval(found["response"], bootstrap))
    return each.where(found["downstream"]).transpose("bound", *_PAIR[2:])


def of_experiment(results: xr.Dataset, name: ResultKind) -> xr.Dataset:
    """Return the results of an experiment, with a dimension `readout` in any case.

    Raises:
        HydrascopeError: the results are of another experiment, or lack a dimension.
    """
    if result_kind(results.attrs) != name:
        raise HydrascopeError(f"these are no results of {name}: measure with {MADE_BY[name]}")
    require_dimensions(results, ("total", "direct"))
    return results if "readout" in results.dims else results.expand_dims("readout")


def _pair_values(
    mediated: Sequence[Mediated],
    components: Sequence[Component],
    value: Callable[[Mediated, Component], Float[np.ndarray, "readout prompt"]],
) -> Float[np.ndarray, "readout prompt ablated mediator"]:
    """Return a value of each ablation and mediator, 0 if the mediator isn't downstream."""
    first = (
        value(*next((one, component) for one in mediated for component in one.one_frozen))
        if any(one.one_frozen for one in mediated)
        else 0
    )
    return np.stack(
        [
            np.stack(
                [
                    value(one, component) if component in one.one_frozen else np.zeros_like(first)
                    for component in components
                ],
                -1,
            )
            for one in mediated
        ],
        -2,
    )


def _responses(
    results: xr.Dataset, rows: Sequence[int], mediated: Sequence[Mediated], components: Sequence[Component]
) -> Float[np.ndarray, "readout prompt ablated mediator"]:
    """Return the change of each mediator's direct effect; NaN if unknown, 0 if not downstream."""
    if "unembed_ablated" not in results:  # the run kept effects only
        shape = *(results.sizes[dim] for dim in _SINGLE[:2]), len(rows), len(components)
        return np.where(_is_downstream(mediated, components), np.full(shape, np.nan), 0.0)
    column = {str(label): number for number, label in enumerate(results["component"].values)}
    read = [number for number, component in enumerate(components) if str(component) in column]
    columns = [column[str(components[number])] for number in read]
    after = results["unembed_ablated"].isel(ablated=list(rows), component=columns).transpose(*_SINGLE, "component")
    before = results["unembed"].isel(component=columns).transpose("readout", "prompt", "component")
    values = np.full((*after.shape[:-1], len(components)), np.nan)
    values[..., read] = after.values.astype(np.float64) - before.values.astype(np.float64)[:, :, None]
    return np.where(_is_downstream(mediated, components), values, 0.0)


def _is_downstream(
    mediated: Sequence[Mediated], components: Sequence[Component]
) -> Bool[np.ndarray, "ablated mediator"]:
    """Return whether each mediator is downstream of each ablated component."""
    return np.array([[component in one.one_frozen for component in components] for one in mediated])
