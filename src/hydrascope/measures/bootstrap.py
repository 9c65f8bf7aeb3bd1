"""Confidence intervals, by resampling the prompts.

Every statistic of this package is a function of *means over prompts*: a slope is a function of the means of x, y, x²,
xy and y². So a resample of the prompts is a vector of weights, all resamples are one matrix, and one matrix product
gives the resampled means of all components.
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

#: The most weights that are in memory at a time.
_MOST_WEIGHTS = 2**22


#: A function of means over prompts, which lie along a first dimension `resample`.
Statistic = Callable[[xr.Dataset], xr.Dataset]


@dataclass(frozen=True)
class Bootstrap:
    """Settings of a percentile bootstrap over prompts (Efron 1979).

    Prompts are taken as independent draws; a prompt's patches stay with it. The same seed gives every statistic the
    same resamples. With few prompts, percentiles are too narrow. They are widened in the ratio of Student's interval of
    a mean to the resamples' (the expanded percentile interval, Hesterberg 2015).

    >>> bootstrap = hs.measures.Bootstrap(resamples=500, confidence=0.9)

    Attributes:
        resamples: the number of resamples.
        confidence: the confidence level, between 0 and 1.
        seed: the seed of the resamples.
    """

    resamples: int = 2000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise HydrascopeError(
                f"a bootstrap needs at least one resample, not {self.resamples}: give a larger number"
            )
        if not 0 < self.confidence < 1:
            raise HydrascopeError(
                f"a confidence level lies between 0 and 1, not at {self.confidence}: give one such as 0.95"
            )

    def tail(self, prompts: int) -> float:
        """Return the share of resamples beyond either bound: Φ(−√(n/(n−1)) · t), n prompts."""
        beyond = stdtrit(prompts - 1, (1 - self.confidence) / 2)
        return float(ndtr(beyond * (prompts / (prompts - 1)) ** 0.5))


def interval(statistic: Statistic, samples: xr.Dataset, bootstrap: Bootstrap) -> xr.Dataset:
    """Return a statistic of the prompts' means with its confidence interval.

    >>> samples = effects["total"].to_dataset(name="total")
    >>> mean = hs.measures.interval(lambda means: means, samples, hs.measures.Bootstrap())

    Args:
        statistic: a function from the means of `samples` over prompts to a dataset. It is called once. The means over
            all prompts and over each resample lie along a first dimension `resample`.
        samples: variables with a dimension `prompt`.
        bootstrap: how intervals are drawn.

    Returns:
        the variables of `statistic`, each with a first dimension `bound`: `estimate` (on all prompts), `low` and `high`
        (percentiles over the resamples, see `Bootstrap.tail`). Bounds are NaN for a single prompt, and where the
        statistic is NaN in some resample.
    """
    return _percentiles(statistic(_means(samples, bootstrap)), samples.sizes["prompt"], bootstrap)


def simultaneous(statistic: Statistic, samples: xr.Dataset, bootstrap: Bootstrap, dim: str) -> xr.Dataset:
    """Return a statistic with bounds that hold for all entries along `dim` at once.

    Bounds are estimate ± q · standard error. q is the quantile of the largest |resampled − estimate| / standard error
    along `dim` (max-t; Montiel Olea & Plagborg-Møller 2019). They are wider than those of `interval`.

    >>> samples = effects["total"].to_dataset(name="total")
    >>> mean = hs.measures.simultaneous(lambda means: means, samples, hs.measures.Bootstrap(), "ablated")

    Args:
        statistic: as in `interval`.
        samples: variables with a dimension `prompt`.
        bootstrap: how intervals are drawn.
        dim: the dimension of the entries.

    Returns:
        the variables of `statistic`, each with a first dimension `bound`.
    """
    return _max_t(statistic(_means(samples, bootstrap)), samples.sizes["prompt"], bootstrap, dim)


def simultaneous_difference(
    first: xr.Dataset, second: xr.Dataset, bootstrap: Bootstrap, dim: str, *, paired: bool
) -> xr.Dataset:
    """Return means of `second` minus those of `first`, with bounds for all of `dim` at once.

    The bounds are those of `simultaneous`.

    >>> first, second = (effects[name].to_dataset(name="effect") for name in ("direct", "total"))
    >>> bootstrap = hs.measures.Bootstrap()
    >>> means = hs.measures.simultaneous_difference(first, second, bootstrap, "ablated", paired=True)

    Args:
        first: variables with a dimension `prompt`.
        second: the same variables, of the same or of other prompts.
        bootstrap: how bounds are drawn.
        dim: the dimension of the entries.
        paired: whether both have the same prompts in the same order, which are then resampled together.

    Returns:
        the variables, each with a first dimension `bound`.
    """
    before, after = _both_means(first, second, bootstrap, paired=paired)
    return _max_t(after - before, min(first.sizes["prompt"], second.sizes["prompt"]), bootstrap, dim)


def _max_t(values: xr.Dataset, prompts: int, bootstrap: Bootstrap, dim: str) -> xr.Dataset:
    """Return a statistic [resample, …] with max-t bounds along `dim`, `[bound, …]`."""
    if values.sizes["resample"] < 2 or not values.sizes[dim]:
        return _percentiles(values, prompts, bootstrap)
    estimate, resampled = values.isel(resample=0), values.isel(resample=slice(1, None))
    error = resampled.std("resample")
    # An entry that doesn't vary makes no bound wider.
    largest = (abs(resampled - estimate) / error.where(error > 0)).fillna(0).max(dim)
    within = 1 - 2 * bootstrap.tail(prompts)
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
    """Return a statistic of `second` minus that of `first`, with its confidence interval.

    >>> first, second = (effects[name].to_dataset(name="effect") for name in ("direct", "total"))
    >>> mean = hs.measures.difference(lambda means: means, first, second, hs.measures.Bootstrap(), paired=True)

    Args:
        statistic: as in `interval`.
        first: variables with a dimension `prompt`.
        second: the same variables, of the same or of other prompts.
        bootstrap: how intervals are drawn.
        paired: whether both have the same prompts in the same order, which are then resampled together.

    Returns:
        the variables of `statistic`, each with a first dimension `bound`.
    """
    before, after = map(statistic, _both_means(first, second, bootstrap, paired=paired))
    return _percentiles(after - before, min(first.sizes["prompt"], second.sizes["prompt"]), bootstrap)


def _both_means(
    first: xr.Dataset, second: xr.Dataset, bootstrap: Bootstrap, *, paired: bool
) -> tuple[xr.Dataset, xr.Dataset]:
    """Return `_means` of both, with the same prompts in each resample if they are paired."""
    other = bootstrap if paired else replace(bootstrap, seed=bootstrap.seed + 1)
    means = _means(first, bootstrap), _means(second, other)
    # A single prompt has an estimate and no resamples.
    count = min(each.sizes["resample"] for each in means)
    before, after = (each.isel(resample=slice(count)) for each in means)
    return before, after


def mean_interval(values: xr.DataArray, bootstrap: Bootstrap) -> xr.DataArray:
    """Return the mean over prompts with its confidence interval.

    >>> mean = hs.measures.mean_interval(effects["total"], hs.measures.Bootstrap())

    Args:
        values: `[prompt, …]`.
        bootstrap: how intervals are drawn.

    Returns:
        `[bound, …]`, in the unit of `values`.
    """
    return interval(lambda means: means, values.rename("mean").to_dataset(), bootstrap)["mean"]


def _means(samples: xr.Dataset, bootstrap: Bootstrap) -> xr.Dataset:
    """Return the means over all prompts, then over each resample, along a first dimension.

    A single prompt has no resamples.
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


def _percentiles(statistics: xr.Dataset, prompts: int, bootstrap: Bootstrap) -> xr.Dataset:
    """Return a statistic of all prompts and its percentiles over the resamples, `[bound, …]`.

    The percentiles are NaN where there are no resamples.
    """

    def bounds(values: Float[np.ndarray, "resample ..."]) -> Float[np.ndarray, "bound ..."]:
        sides = np.full((2, *values.shape[1:]), np.nan)
        if len(values) > 1:
            tail = bootstrap.tail(prompts)
            sides = np.quantile(values[1:], [tail, 1 - tail], axis=0)
        return np.concatenate([values[:1], sides])

    statistics = statistics.transpose("resample", ...)
    return xr.Dataset(
        {
            name: (("bound", *each.dims[1:]), bounds(each.values.astype(np.float64)))
            for name, each in statistics.items()
        },
        {**statistics.coords, "bound": list(BOUNDS)},
    )


def _weights(prompts: int, bootstrap: Bootstrap) -> Iterator[Float[np.ndarray, "resample prompt"]]:
    """Yield the weights of prompts in the resamples, some resamples at a time."""
    draw = _cached_weights if bootstrap.resamples * prompts <= _MOST_WEIGHTS else _draw_weights
    yield from draw(prompts, bootstrap.resamples, bootstrap.seed)


@lru_cache(maxsize=2)  # a summary and a report draw the same resamples a hundred times
def _cached_weights(prompts: int, resamples: int, seed: int) -> tuple[Float[np.ndarray, "resample prompt"], ...]:
    return tuple(_draw_weights(prompts, resamples, seed))


def _draw_weights(prompts: int, resamples: int, seed: int) -> Iterator[Float[np.ndarray, "resample prompt"]]:
    generator = np.random.default_rng(seed)
    step = max(1, _MOST_WEIGHTS // prompts)
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        draws = generator.integers(prompts, size=(count, prompts))
        offset = np.arange(count)[:, None] * prompts
        counts = np.bincount((draws + offset).ravel(), minlength=count * prompts)
        weights = counts.reshape(count, prompts) / prompts
        weights.flags.writeable = False
        yield weights
