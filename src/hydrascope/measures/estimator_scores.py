"""Agreement of estimated total effects with the exact ones, also by the amount of repair."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from hydrascope.measures.bootstrap import Bootstrap, difference, interval
from hydrascope.measures.effects_per_prompt import select_readout
from hydrascope.measures.effects_type import Effects, takes_effects
from hydrascope.utils.errors import HydrascopeError

#: The number of components with the largest mean effects that `top` compares; all if there are fewer.
TOP = 10

#: The label of the halves' difference along `prompts`.
DIFFERENCE = "much − little"

#: The attributes that estimates and exact effects must share.
_SHARED = (
    *("model", "revision", "dtype", "prompts_hash", "positions", "target"),
    *("ablation", "patches", "seed", "different_target", "noise_scale"),
)


@takes_effects
def scores(
    effects: Effects,
    estimates: Mapping[str, xr.Dataset],
    bootstrap: Bootstrap | None = None,
) -> xr.Dataset:
    """Score estimates of total effects against the exact ones, over the ablated components.

    >>> atp = hs.analyses.attribution.atp(model, prompts, hs.Zero(), ablate="layers")
    >>> pearson = hs.measures.scores(effects, {"atp": atp})["pearson"]

    Args:
        effects: the exact effects, of a sweep that ablates the components one by one.
        estimates: estimates of `hydrascope.analyses.attribution` by name, with the same prompts, patches, readout and
            components.
        bootstrap: how intervals are drawn.

    Returns:
        scores of the effects' means over prompts, [bound, prompts, estimator], without unit:

        - `pearson`, `spearman` (ties share their mean rank): the correlation over components, NaN where one is
          constant;
        - `top`: the share of the ten components with the largest |total| that are among the ten with the largest
          |estimate|.

        Besides, `seconds` [estimator] is the time that each estimate took, and `repaired` [prompt] the slope through 0
        of total − direct on −direct over components. `prompts` are `all`; `little` and `much`, those up to and above
        the median of `repaired`; and `much − little`, the difference, which is below 0 if a method loses where more is
        repaired. Prompts without direct effects are in neither half. Scores of missing halves are NaN.

    Raises:
        HydrascopeError: there is no estimate, or one has other prompts, patches, components or readouts.
    """
    if not estimates:
        raise HydrascopeError("there is nothing to score: give at least one estimate by its name")
    bootstrap = bootstrap or Bootstrap()
    aligned = [align_estimate(effects, name, estimate) for name, estimate in estimates.items()]
    samples = xr.Dataset(
        {
            "exact": (("prompt", "ablated"), effects["total"].values),
            "estimate": (("estimator", "prompt", "ablated"), np.stack(aligned)),
        },
        {"estimator": list(estimates)},
    )
    repaired = _restored_slope(effects)
    median = np.nanmedian(repaired) if np.isfinite(repaired).any() else np.nan
    # Comparisons with NaN are False.
    little, much = samples.isel(prompt=repaired <= median), samples.isel(prompt=repaired > median)
    scored = {"all": interval(agreement, samples, bootstrap)}
    if little.sizes["prompt"] and much.sizes["prompt"]:
        scored["little"], scored["much"] = (interval(agreement, half, bootstrap) for half in (little, much))
        scored[DIFFERENCE] = difference(agreement, little, much, bootstrap, paired=False)
    joined = xr.concat(list(scored.values()), pd.Index(list(scored), name="prompts"))
    seconds = [float(estimate.attrs["seconds"]) for estimate in estimates.values()]
    return (
        joined.reindex(prompts=["all", "little", "much", DIFFERENCE])
        .transpose("bound", "prompts", "estimator")
        .assign(seconds=("estimator", seconds, {"units": "s"}), repaired=("prompt", repaired))
    )


def align_estimate(effects: Effects, name: str, estimate: xr.Dataset) -> np.ndarray:
    """Return an estimate in the order of `effects`, `[prompt, ablated]`.

    Raises:
        HydrascopeError: it has other settings, prompts, components or readouts than `effects`.
    """
    for key in _SHARED:
        one, other = effects.data.attrs.get(key), estimate.attrs.get(key)
        if one != other:
            raise HydrascopeError(
                f"the estimate {name!r} has another {key}, {other}, than the results, {one}: make both alike"
            )
    # Some prompts of a set may have been selected, or reordered.
    one, other = (list(map(str, each["text"].values)) for each in (effects, estimate))
    if one != other:
        raise HydrascopeError(f"the estimate {name!r} has other prompts than the results: select the same of both")
    labels = [str(label) for label in effects["ablated"].values]
    selected = select_readout(estimate, effects.readout)
    index = {str(label): number for number, label in enumerate(selected["ablated"].values)}
    if sorted(labels) != sorted(index):
        raise HydrascopeError(
            f"the estimate {name!r} has other components than the results: select the same with ablate"
        )
    values = selected["estimate"].transpose("prompt", "ablated").values.astype(np.float64)
    return values[:, [index[label] for label in labels]]


def _restored_slope(effects: Effects) -> Float[np.ndarray, "prompt"]:
    """Return the share restored on each prompt: the slope over components, through 0."""
    total, direct = (effects[name].transpose("prompt", "ablated").values for name in ("total", "direct"))
    size = (direct**2).sum(1)
    with np.errstate(invalid="ignore"):
        return np.where(size > 0, -((total - direct) * direct).sum(1) / size, np.nan)


def agreement(means: xr.Dataset) -> xr.Dataset:
    """Return the scores of estimates, `[…, estimator]`, from means with a dimension `ablated`."""
    both = xr.broadcast(means["exact"], means["estimate"])
    order = (*(dim for dim in both[0].dims if dim != "ablated"), "ablated")
    exact, estimate = (each.transpose(*order).values for each in both)
    found = {
        "pearson": _correlation(exact, estimate),
        "spearman": _correlation(_ranks(exact), _ranks(estimate)),
        "top": (_is_top(exact) & _is_top(estimate)).sum(-1) / min(TOP, exact.shape[-1]),
    }
    return xr.Dataset({name: (order[:-1], values) for name, values in found.items()}, {"estimator": means["estimator"]})


def _correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation over the last dimension."""
    one, other = (each - each.mean(-1, keepdims=True) for each in (one, other))
    with np.errstate(invalid="ignore"):
        return np.asarray((one * other).sum(-1) / np.sqrt((one**2).sum(-1) * (other**2).sum(-1)))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks along the last dimension; ties share their mean."""
    return np.asarray(pd.DataFrame(values.reshape(-1, values.shape[-1])).rank(axis=1)).reshape(values.shape)


def _is_top(values: np.ndarray) -> np.ndarray:
    """Whether each entry is among the largest absolute values along the last dimension."""
    order = np.argsort(-abs(values), axis=-1, kind="stable")
    top = np.zeros(values.shape, bool)
    np.put_along_axis(top, order[..., :TOP], True, -1)
    return top
