"""Confidence intervals, by resampling the prompts.

Every statistic of this package is a function of *means over prompts*: a slope is a function of the means of
x, y, x², xy and y². So one resample of the prompts is one vector of weights, all resamples are one matrix,
and the resampled statistics of all layers come out of one matrix product.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from jaxtyping import Float

from hydrascope.errors import HydrascopeError

#: Labels of the dimension `bound`.
BOUNDS = ("estimate", "low", "high")

#: Resamples whose weights are held at a time: at most this many numbers.
_BLOCK = 2**22


#: A function of means over prompts.
Statistic = Callable[[xr.Dataset], xr.Dataset]


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn: percentile bootstrap (Efron 1979) over prompts, reproducible from the seed.

    The prompts are taken as independent draws; a prompt's patches stay with it. The same seed gives every
    statistic the same resamples.
    """

    resamples: int = 2000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise HydrascopeError(f"a bootstrap needs at least one resample, not {self.resamples}")
        if not 0 < self.confidence < 1:
            raise HydrascopeError(f"a confidence level lies between 0 and 1, not at {self.confidence}")


def interval(statistic: Callable[[xr.Dataset], xr.Dataset], samples: xr.Dataset, bootstrap: Bootstrap) -> xr.Dataset:
    """A statistic of the prompts' means, and its confidence interval.

    Args:
        statistic: from the means of `samples` over prompts to any number of quantities. It must work with
            further dimensions (it is called once on all resamples, which lie along `resample`).
        samples: variables with a dimension `prompt`.

    Returns:
        what `statistic` returns, each variable with one more dimension `bound`: `estimate` (on all prompts),
        `low` and `high` (the percentiles of the resampled statistic). Bounds are NaN for a single prompt,
        which tells nothing of others, and wherever the statistic is undefined in some resample.
    """
    samples = samples.transpose("prompt", ...).astype(np.float64)
    estimate = statistic(samples.mean("prompt", skipna=False))
    if samples.sizes["prompt"] > 1:
        resampled = statistic(_resampled_means(samples, bootstrap))
        tail = (1 - bootstrap.confidence) / 2
        low, high = (
            resampled.quantile(level, "resample", skipna=False).drop_vars("quantile") for level in (tail, 1 - tail)
        )
    else:
        low = high = xr.full_like(estimate, np.nan, dtype=np.float64)
    bounds = xr.concat([estimate.astype(np.float64), low, high], "bound", coords="minimal", compat="override")
    return bounds.assign_coords(bound=list(BOUNDS)).transpose("bound", ...)


def simultaneous(
    statistic: Callable[[xr.Dataset], xr.Dataset], samples: xr.Dataset, bootstrap: Bootstrap, dim: str
) -> xr.Dataset:
    """As `interval`, but the bounds along `dim` hold all at once: with the stated confidence none of them is wrong.

    estimate ± q · standard error, q the quantile of the largest |resampled − estimate| / standard error along `dim`
    (max-t; Montiel Olea & Plagborg-Møller 2019). Wider than `interval`, by how much depends on how many there are and
    how they go together.
    """
    found = interval(statistic, samples, bootstrap)
    if samples.sizes["prompt"] < 2 or not found.sizes[dim]:
        return found
    resampled = statistic(_resampled_means(samples.transpose("prompt", ...).astype(np.float64), bootstrap))
    error, estimate = resampled.std("resample"), found.sel(bound="estimate", drop=True)
    # What doesn't vary is certain.
    largest = (abs(resampled - estimate) / error.where(error > 0)).fillna(0).max(dim)
    width = largest.quantile(bootstrap.confidence, "resample").drop_vars("quantile") * error
    sides = xr.concat([0 * width, -width, width], "bound", coords="minimal", compat="override")
    return (estimate + sides.assign_coords(bound=list(BOUNDS))).transpose("bound", ...)


def difference(
    statistic: Callable[[xr.Dataset], xr.Dataset],
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
    both = [samples.transpose("prompt", ...).astype(np.float64) for samples in (first, second)]
    estimates = [statistic(samples.mean("prompt", skipna=False)) for samples in both]
    estimate = estimates[1] - estimates[0]
    low = high = xr.full_like(estimate, np.nan)
    if min(samples.sizes["prompt"] for samples in both) > 1:
        resampled = statistic(_resampled_means(both[1], other)) - statistic(_resampled_means(both[0], bootstrap))
        tail = (1 - bootstrap.confidence) / 2
        low, high = (resampled.quantile(at, "resample", skipna=False).drop_vars("quantile") for at in (tail, 1 - tail))
    bounds = xr.concat([estimate, low, high], "bound", coords="minimal", compat="override")
    return bounds.assign_coords(bound=list(BOUNDS)).transpose("bound", ...)


def mean_interval(values: xr.DataArray, bootstrap: Bootstrap) -> xr.DataArray:
    """The mean over prompts with its confidence interval, along `bound`."""
    return interval(lambda means: means, values.rename("mean").to_dataset(), bootstrap)["mean"]


def _resampled_means(samples: xr.Dataset, bootstrap: Bootstrap) -> xr.Dataset:
    """The means over each resample of the prompts, along a new first dimension `resample`."""
    flat = {name: samples[name].values.reshape(samples.sizes["prompt"], -1) for name in samples}
    means: dict[object, list[np.ndarray]] = {name: [] for name in flat}
    for weights in _weights(samples.sizes["prompt"], bootstrap):
        for name, values in flat.items():
            means[name].append(weights @ values)
    shapes = {name: ("resample", *samples[name].dims[1:]) for name in samples}
    return xr.Dataset(
        {
            name: (shapes[name], np.concatenate(means[name]).reshape(bootstrap.resamples, *samples[name].shape[1:]))
            for name in samples
        },
        coords={name: coord for name, coord in samples.coords.items() if "prompt" not in coord.dims},
    )


def _weights(prompts: int, bootstrap: Bootstrap) -> Iterator[Float[np.ndarray, "resample prompt"]]:
    """How often each resample drew each prompt, over the number of prompts; in blocks along the resamples."""
    generator = np.random.default_rng(bootstrap.seed)
    step = max(1, _BLOCK // prompts)
    for start in range(0, bootstrap.resamples, step):
        count = min(step, bootstrap.resamples - start)
        draws = generator.integers(prompts, size=(count, prompts))
        offset = np.arange(count)[:, None] * prompts
        counts = np.bincount((draws + offset).ravel(), minlength=count * prompts)
        yield counts.reshape(count, prompts) / prompts
