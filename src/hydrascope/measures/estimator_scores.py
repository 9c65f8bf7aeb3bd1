"""How well estimates of total effects agree with the exact ones, and whether they lose where much is repaired."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from hydrascope.measures.bootstrap import Bootstrap, difference, interval
from hydrascope.measures.effects_per_prompt import select_readout
from hydrascope.measures.effects_type import Effects, takes_effects
from hydrascope.utils.errors import HydrascopeError

#: Whose overlap is `top`: this many of the parts with the largest mean effects, or all where there are fewer.
TOP = 10

#: How the halves' difference is called along `prompts`.
DIFFERENCE = "much − little"

#: What must be alike for an estimate to be one of the exact effect.
_ALIKE = (
    *("model", "revision", "dtype", "prompts_hash", "positions", "target"),
    *("ablation", "patches", "seed", "different_target", "noise_scale"),
)


@takes_effects
def scores(
    effects: Effects,
    estimates: Mapping[str, xr.Dataset],
    bootstrap: Bootstrap | None = None,
) -> xr.Dataset:
    """Estimates of total effects against the exact ones, over the ablated parts.

        >>> effects = per_prompt(hs.sweep(model, prompts, ablate="heads"))                   # doctest: +SKIP
        >>> scores(effects, {"atp": hs.analyses.attribution.atp(model, prompts, ablate="heads")})     # doctest: +SKIP

    Args:
        effects: of results of `sweep`, all parts ablated one by one.
        estimates: by name, of `hydrascope.analyses.attribution`, with the same prompts, patches, readout and parts.
        bootstrap: over prompts.

    Returns:
        [bound, prompts, estimator], without unit, of the effects' means over prompts:

        - `pearson`, `spearman` (ties share their mean rank): correlation over parts; NaN where either is constant.
        - `top`: the share of the ten parts with the largest |total| that are among the ten with the largest |estimate|.

        and `seconds` [estimator], that each took. `prompts` are `all`; `little` and `much`, the halves below and above
        the median of `repaired` [prompt], the slope through 0 of total − direct on −direct over parts; and `much −
        little`, the halves' difference, below 0 where a method loses as more is repaired. A prompt on which no part has
        a direct effect is in neither half; without halves, what is asked of them is NaN.

    Raises:
        HydrascopeError: an estimate is of other prompts, patches, parts or readouts; or there is none.
    """
    if not estimates:
        raise HydrascopeError("there is nothing to score: give an estimate by its name")
    bootstrap = bootstrap or Bootstrap()
    guesses = [of_the_same(effects, name, estimate) for name, estimate in estimates.items()]
    samples = xr.Dataset(
        {
            "exact": (("prompt", "ablated"), effects["total"].values),
            "estimate": (("estimator", "prompt", "ablated"), np.stack(guesses)),
        },
        {"estimator": list(estimates)},
    )
    repaired = _repaired(effects)
    middle = np.nanmedian(repaired) if np.isfinite(repaired).any() else np.nan
    # Comparisons with NaN are False.
    little, much = samples.isel(prompt=repaired <= middle), samples.isel(prompt=repaired > middle)
    found = {"all": interval(_agreement, samples, bootstrap)}
    if little.sizes["prompt"] and much.sizes["prompt"]:
        found["little"], found["much"] = (interval(_agreement, half, bootstrap) for half in (little, much))
        found[DIFFERENCE] = difference(_agreement, little, much, bootstrap, paired=False)
    joined = xr.concat(list(found.values()), pd.Index(list(found), name="prompts"))
    seconds = [float(estimate.attrs["seconds"]) for estimate in estimates.values()]
    return (
        joined.reindex(prompts=["all", "little", "much", DIFFERENCE])
        .transpose("bound", "prompts", "estimator")
        .assign(seconds=("estimator", seconds, {"units": "s"}), repaired=("prompt", repaired))
    )


def of_the_same(effects: Effects, name: str, estimate: xr.Dataset) -> np.ndarray:
    """`[prompt, ablated]` The estimate of what `effects` are the exact values of.

    Raises:
        HydrascopeError: it is of something else.
    """
    for key in _ALIKE:
        one, other = effects.data.attrs.get(key), estimate.attrs.get(key)
        if one != other:
            raise HydrascopeError(f"the estimate {name!r} is of another {key}, {other}, than the results, {one}")
    # Of the same set some may have been chosen, or put in another order.
    one, other = (list(map(str, each["text"].values)) for each in (effects, estimate))
    if one != other:
        raise HydrascopeError(f"the estimate {name!r} is of other prompts than the results: choose the same of both")
    read, parts = effects.readout, [str(label) for label in effects["ablated"].values]
    at = select_readout(estimate, read)
    if sorted(parts) != sorted(str(label) for label in at["ablated"].values):
        raise HydrascopeError(f"the estimate {name!r} is of other parts than the results: select the same with ablate")
    place = {str(label): number for number, label in enumerate(at["ablated"].values)}
    values = at["estimate"].transpose("prompt", "ablated").values.astype(np.float64)
    return values[:, [place[part] for part in parts]]


def _repaired(effects: Effects) -> Float[np.ndarray, "prompt"]:
    """What share of what is removed is restored on each prompt: the slope over parts, through 0."""
    total, direct = (effects[name].transpose("prompt", "ablated").values for name in ("total", "direct"))
    size = (direct**2).sum(1)
    with np.errstate(invalid="ignore"):
        return np.where(size > 0, -((total - direct) * direct).sum(1) / size, np.nan)


def _agreement(means: xr.Dataset) -> xr.Dataset:
    """How the estimates agree with the exact effects, [estimator] and whatever further dimensions the means have."""
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
    """Pearson's, over the last dimension."""
    one, other = (each - each.mean(-1, keepdims=True) for each in (one, other))
    with np.errstate(invalid="ignore"):
        return (one * other).sum(-1) / np.sqrt((one**2).sum(-1) * (other**2).sum(-1))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks along the last dimension; ties share their mean."""
    return pd.DataFrame(values.reshape(-1, values.shape[-1])).rank(axis=1).to_numpy().reshape(values.shape)


def _is_top(values: np.ndarray) -> np.ndarray:
    """Which are among the largest along the last dimension, whatever their signs."""
    order = np.argsort(-abs(values), axis=-1, kind="stable")
    top = np.zeros(values.shape, bool)
    np.put_along_axis(top, order[..., :TOP], True, -1)
    return top
