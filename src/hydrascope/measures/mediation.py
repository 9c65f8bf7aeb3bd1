"""Who repairs: what each part's reaction to an ablation is worth, not what it writes.

A response is not yet a repair: that d writes more for the answer when k is ablated doesn't say how much of the answer
depends on it, since what d writes is read by others, too. Here d's reaction is taken away, or left alone, by freezing.
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

#: `[readout, prompt]` the mean total effect of a run.
_Total = Callable[[Override], Float[np.ndarray, "readout prompt"]]

_PAIR, _SINGLE = ("readout", "prompt", "ablated", "mediator"), ("readout", "prompt", "ablated")


def mediation(results: xr.Dataset) -> xr.Dataset:
    """What the reaction of each mediator d to each ablation k is worth, as necessary and as sufficient.

        >>> found = measures.mediation(hs.open_results("mediation.zarr"))        # doctest: +SKIP
        >>> found["restored_by"].mean("prompt")                                  # doctest: +SKIP

    Args:
        results: of a run of `hydrascope.Mediation`.

    Returns:
        means over patches, in the readouts' units:

        - `restored_by` [readout, prompt, ablated, mediator] π̂^k − π̂^{k, d frozen}: what d's reaction brings, wherever
          it brings it. 0, exactly, of what isn't downstream.
        - `restored_alone` (likewise) π̂^{k, all downstream of k frozen but d} − π̂^{k, all downstream of k frozen}:
          what d's reaction brings if nobody else reacts: path patching k → d → output with everything else held. Where
          d is a head, the other heads of its layer are frozen.
        - `response` (likewise) `unembed_ablated` − `unembed` of d, at the clean run's σ: what d itself writes more; NaN
          where d wasn't read, or what it writes wasn't kept.
        - `restored` [readout, prompt, ablated] π̂^k − π̂^{k, all downstream of k frozen}: what all bring together.
        - `restored_together` (likewise) π̂^k − π̂^{k, all mediators frozen}: what the mediators bring together.
        - `total`, `direct` (likewise), of k alone.
        - `downstream` [ablated, mediator], whether d can react to k.

    Raises:
        HydrascopeError: the results are of another experiment, or not whole.
    """
    results = of_experiment(results, "mediation")
    network = Network.of(results)
    components = [Component.parse(label) for label in str(results.attrs["mediators"]).split(",")]
    labels = list(map(str, results["ablated"].values))
    asked = [Mediated.of(network, Override.parse(label), components) for label in labels if "|" not in label]
    place = {label: number for number, label in enumerate(labels)}
    if not asked or any(str(override) not in place for one in asked for override in one.overrides):
        raise HydrascopeError("runs of the mediation were left out: give all, and choose among what is found")
    rows = [place[str(one.override)] for one in asked]
    means = results[["total", "direct"]].mean("patch", dtype=np.float64).transpose(*_SINGLE).compute()

    def total(override: Override) -> np.ndarray:
        return np.asarray(means["total"].values[..., place[str(override)]])

    pairs = {
        "restored_by": _of_pairs(
            asked, components, lambda one, component: total(one.override) - total(one.one_frozen[component])
        ),
        "restored_alone": _of_pairs(
            asked, components, lambda one, component: total(one.one_free[component]) - total(one.all_frozen)
        ),
        "response": _responses(results, rows, asked, components),
    }
    singles = {
        "restored": [total(one.override) - total(one.all_frozen) for one in asked],
        "restored_together": [total(one.override) - total(one.mediators_frozen) for one in asked],
        **{name: [means[name].values[..., row] for row in rows] for name in ("total", "direct")},
    }
    return xr.Dataset(
        {
            **{name: (_PAIR, values) for name, values in pairs.items()},
            **{name: (_SINGLE, np.stack(values, -1)) for name, values in singles.items()},
            "downstream": (_PAIR[2:], _reached(asked, components)),
        },
        {
            "ablated": np.array([str(one.override) for one in asked], object),
            "mediator": np.array([str(component) for component in components], object),
            **{name: results[name] for name in ("readout", "text", "target_text")},
        },
        results.attrs,
    )


def reactions(results: xr.Dataset, readout: str | None = None, bootstrap: Bootstrap | None = None) -> xr.Dataset:
    """What each reaction is worth in the mean over prompts, with bounds.

        >>> measures.reactions(results)["restored_by"].sel(ablated="attn.3", mediator="mlp.5")   # doctest: +SKIP

    Args:
        results: as for `mediation`.
        readout: its label; by default the first.

    Returns:
        `restored_by` and `restored_alone` of `mediation`, with bounds that hold for all reactions at once
        (`simultaneous`), and `response`, with an interval each: [bound, ablated, mediator], in the readout's unit; NaN
        where the mediator isn't downstream, or its response wasn't read.

    Raises:
        HydrascopeError: the results are of another experiment, or there is no such readout.
    """
    found, bootstrap = select_readout(mediation(results), readout), bootstrap or Bootstrap()
    samples = found[["restored_by", "restored_alone"]].transpose("prompt", "ablated", "mediator")
    flat = samples.stack(pair=("ablated", "mediator"), create_index=False)
    # What isn't downstream is 0 on every prompt, and makes no bound wider.
    sure = simultaneous(lambda means: means, flat, bootstrap, "pair").transpose("bound", "pair")
    shape = (-1, *samples["restored_by"].shape[1:])
    bounds = {name: (("bound", *_PAIR[2:]), sure[name].values.reshape(shape)) for name in samples}
    coordinates = {name: found[name] for name in ("ablated", "mediator")} | {"bound": sure["bound"]}
    each = xr.Dataset(bounds, coordinates).assign(response=mean_interval(found["response"], bootstrap))
    return each.where(found["downstream"]).transpose("bound", *_PAIR[2:])


def of_experiment(results: xr.Dataset, name: ResultKind) -> xr.Dataset:
    """The results of an experiment; the readout is a dimension of them where one was taken, too.

    Raises:
        HydrascopeError: they are of another experiment, or lack a dimension.
    """
    if result_kind(results.attrs) != name:
        raise HydrascopeError(f"these results tell nothing of {name}: measure with {MADE_BY[name]}")
    require_dimensions(results, ("total", "direct"))
    return results if "readout" in results.dims else results.expand_dims("readout")


def _of_pairs(
    asked: Sequence[Mediated],
    components: Sequence[Component],
    value: Callable[[Mediated, Component], Float[np.ndarray, "readout prompt"]],
) -> Float[np.ndarray, "readout prompt ablated mediator"]:
    """A value of each ablation and each of its mediators; 0 of what isn't downstream."""
    first = (
        value(*next((one, component) for one in asked for component in one.one_frozen))
        if any(o.one_frozen for o in asked)
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
            for one in asked
        ],
        -2,
    )


def _responses(
    results: xr.Dataset, rows: Sequence[int], asked: Sequence[Mediated], components: Sequence[Component]
) -> Float[np.ndarray, "readout prompt ablated mediator"]:
    if "unembed_ablated" not in results:  # effects alone were kept
        shape = *(results.sizes[dim] for dim in _SINGLE[:2]), len(rows), len(components)
        return np.where(_reached(asked, components), np.full(shape, np.nan), 0.0)
    column = {str(label): number for number, label in enumerate(results["component"].values)}
    read = [number for number, component in enumerate(components) if str(component) in column]
    columns = [column[str(components[number])] for number in read]
    after = results["unembed_ablated"].isel(ablated=list(rows), component=columns).transpose(*_SINGLE, "component")
    before = results["unembed"].isel(component=columns).transpose("readout", "prompt", "component")
    found = np.full((*after.shape[:-1], len(components)), np.nan)
    found[..., read] = after.values.astype(np.float64) - before.values.astype(np.float64)[:, :, None]
    return np.where(_reached(asked, components), found, 0.0)


def _reached(asked: Sequence[Mediated], components: Sequence[Component]) -> Bool[np.ndarray, "ablated mediator"]:
    return np.array([[component in one.one_frozen for component in components] for one in asked])
