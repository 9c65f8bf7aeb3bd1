"""Confidence intervals, by resampling the prompts.

Every statistic of this package is a function of *means over prompts*: a slope is a function of the means of
x, y, x², xy and y². So one resample of the prompts is one vector of weights, all resamples are one matrix,
and the resampled statistics of all layers come out of one matrix product.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.special import ndtr, stdtrit

from hydrascope.utils.errors import HydrascopeError

#: Labels of the dimension `bound`.
BOUNDS = ("estimate", "low", "high")

#: Resamples whose weights are held at a time: at most this many numbers.
_BLOCK = 2**22


#: A function of means over prompts, which lie along a first dimension `resample`.
Statistic = Callable[[xr.Dataset], xr.Dataset]


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn: percentile bootstrap (Efron 1979) over prompts, reproducible from the seed.

    The prompts are taken as independent draws; a prompt's patches stay with it. The same seed gives every
    statistic the same resamples. Of few prompts resamples vary too little, and how much the statistic varies is known
    badly: so the percentiles lie further out, by as much as Student's interval of a mean is wider than the resamples'
    (the expanded percentile interval, Hesterberg 2015); from 200 prompts on that is hardly seen.
    """

    resamples: int = 2000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise HydrascopeError(f"a bootstrap needs at least one resample, not {self.resamples}")
        if not 0 < self.confidence < 1:
            raise HydrascopeError(f"a confidence level lies between 0 and 1, not at {self.confidence}")

    def tail(self, prompts: int) -> float:
        """Which share of the resamples of so many prompts lies beyond either bound: Φ(−√(n/(n−1)) · t)."""
        beyond = stdtrit(prompts - 1, (1 - self.confidence) / 2)
        return float(ndtr(beyond * (prompts / (prompts - 1)) ** 0.5))


def interval(statistic: Statistic, samples: xr.Dataset, bootstrap: Bootstrap) -> xr.Dataset:
    """A statistic of the prompts' means, and its confidence interval.

    Args:
        statistic: from the means of `samples` over prompts to any number of quantities. It is called once: the means
            over all prompts and over each resample lie along a first dimension, `resample`.
        samples: variables with a dimension `prompt`.

    Returns:
        what `statistic` returns, each variable with one more dimension `bound`: `estimate` (on all prompts),
        `low` and `high` (percentiles of the resampled statistic: `Bootstrap.tail`). Bounds are NaN for a single prompt,
        which tells nothing of others, and wherever the statistic is undefined in some resample.
    """
    return _percentiles(statistic(_means(samples, bootstrap)), samples.sizes["prompt"], bootstrap)


def simultaneous(statistic: Statistic, samples: xr.Dataset, bootstrap: Bootstrap, dim: str) -> xr.Dataset:
    """As `interval`, but the bounds along `dim` hold all at once: with the stated confidence none of them is wrong.

    estimate ± q · standard error, q the quantile of the largest |resampled − estimate| / standard error along `dim`
    (max-t; Montiel Olea & Plagborg-Møller 2019). Wider than `interval`, by how much depends on how many there are and
    how they go together.
    """
    found = statistic(_means(samples, bootstrap))
    if found.sizes["resample"] < 2 or not found.sizes[dim]:
        return _percentiles(found, samples.sizes["prompt"], bootstrap)
    estimate, resampled = found.isel(resample=0), found.isel(resample=slice(1, None))
    error = resampled.std("resample")
    # What doesn't vary is certain.
    largest = (abs(resampled - estimate) / error.where(error > 0)).fillna(0).max(dim)
    within = 1 - 2 * bootstrap.tail(samples.sizes["prompt"])
    width = largest.quantile(within, "resample").drop_vars("quantile") * error
    sides = xr.concat([0 * width, -width, width], "bound", coords="minimal", compat="override")
    return (estimate + sides.assign_coords(bound=list(BOUNDS))).transpose("bound", ...)


def difference(
    statistic: Statistic,
    first: xr.Dataset,
    second: xr.Dataset,
    bootstrap: Bootstrap,
    *,
    paired: bool,
) -> xr.Dataset:
    """A statistic of `second` less that of `first`, and its confidence interval, [bound, …].

    Args:
        paired: whether both are of the same prompts in the same order: they are then resampled together.

    Returns:
        as `interval`.
    """
    other = bootstrap if paired else replace(bootstrap, seed=bootstrap.seed + 1)
    means = _means(first, bootstrap), _means(second, other)
    # Of a single prompt there is nothing but the estimate.
    count = min(each.sizes["resample"] for each in means)
    before, after = (statistic(each.isel(resample=slice(count))) for each in means)
    return _percentiles(after - before, min(first.sizes["prompt"], second.sizes["prompt"]), bootstrap)


def mean_interval(values: xr.DataArray, bootstrap: Bootstrap) -> xr.DataArray:
    """The mean over prompts with its confidence interval, along `bound`."""
    return interval(lambda means: means, values.rename("mean").to_dataset(), bootstrap)["mean"]


def _means(samples: xr.Dataset, bootstrap: Bootstrap) -> xr.Dataset:
    """The means over all prompts, first, and over each resample of them, along a new first dimension `resample`.

    Of a single prompt there are no resamples.
    """
    samples = samples.transpose("prompt", ...)
    prompts = samples.sizes["prompt"]
    count = 1 + (bootstrap.resamples if prompts > 1 else 0)
    flat = {name: each.values.reshape(prompts, each[0].size).astype(np.float64) for name, each in samples.items()}
    means = {name: [values.mean(0, keepdims=True)] for name, values in flat.items()}
    for weights in _weights(prompts, bootstrap) if prompts > 1 else ():
        for name, values in flat.items():
            means[name].append(weights @ values)
    return xr.Dataset(
        {
            name: (("resample", *each.dims[1:]), np.concatenate(means[name]).reshape(count, *each.shape[1:]))
            for name, each in samples.items()
        },
        coords={name: coord for name, coord in samples.coords.items() if "prompt" not in coord.dims},
    )


def _percentiles(found: xr.Dataset, prompts: int, bootstrap: Bootstrap) -> xr.Dataset:
    """A statistic of all prompts, and its percentiles over the resamples, [bound, …]; NaN where there are none."""

    def bounds(values: Float[np.ndarray, "resample ..."]) -> Float[np.ndarray, "bound ..."]:
        sides = np.full((2, *values.shape[1:]), np.nan)
        if len(values) > 1:
            tail = bootstrap.tail(prompts)
            sides = np.quantile(values[1:], [tail, 1 - tail], axis=0)
        return np.concatenate([values[:1], sides])

    found = found.transpose("resample", ...)
    return xr.Dataset(
        {name: (("bound", *each.dims[1:]), bounds(each.values.astype(np.float64))) for name, each in found.items()},
        {**found.coords, "bound": list(BOUNDS)},
    )


def _weights(prompts: int, bootstrap: Bootstrap) -> Iterator[Float[np.ndarray, "resample prompt"]]:
    """How often each resample drew each prompt, over the number of prompts; in blocks along the resamples."""
    draw = _drawn_once if bootstrap.resamples * prompts <= _BLOCK else _drawn
    yield from draw(prompts, bootstrap.resamples, bootstrap.seed)


@lru_cache(maxsize=2)  # a summary and a report draw the same a hundred times
def _drawn_once(prompts: int, resamples: int, seed: int) -> tuple[Float[np.ndarray, "resample prompt"], ...]:
    return tuple(_drawn(prompts, resamples, seed))


def _drawn(prompts: int, resamples: int, seed: int) -> Iterator[Float[np.ndarray, "resample prompt"]]:
    generator = np.random.default_rng(seed)
    step = max(1, _BLOCK // prompts)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        draws = generator.integers(prompts, size=(count, prompts))
        offset = np.arange(count)[:, None] * prompts
        counts = np.bincount((draws + offset).ravel(), minlength=count * prompts)
        weights = counts.reshape(count, prompts) / prompts
        weights.flags.writeable = False
        yield weights
