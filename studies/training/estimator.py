"""The study's quantities, from KL divergences alone.

Arrays are xarray's; *gain* is the change of the log KL against the control, below 0 where an arm is more robust.
"""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.special import stdtr, stdtrit

from studies.training.trainer import CONTROL

#: The arms of the primary claim.
ZEROS, SWAPS = "zeros 0.2", "swaps 0.2"
#: The share of the passages that count as loud.
LOUD = 0.05
#: Blocks of passages whose median guards against loud ones.
BLOCKS = 20


def log_kl(means: xr.DataArray) -> xr.DataArray:
    """Return the log of the sum over sublayers of mean KL divergences.

    Args:
        means: `[…, sublayer]`, means over passages.
    """
    return np.log(means.sum("sublayer"))


def gain(logs: xr.DataArray) -> xr.DataArray:
    """Return the change of the log KL against the control of the same seed.

    Args:
        logs: `[…, arm, …]`.
    """
    return logs - logs.sel(arm=CONTROL, drop=True)


def parts(gains: xr.DataArray) -> xr.Dataset:
    """Return the four parts of the primary claim.

    Args:
        gains: `[…, arm, test]`.

    Returns:
        `interaction`, `zeros`, `swaps_zero` and `swaps_resample`: each without `arm` and `test`.
    """
    zeros, swaps = (_kind(gains, arm) for arm in (ZEROS, SWAPS))
    return xr.Dataset(
        {
            "interaction": zeros - swaps,
            "zeros": zeros,
            "swaps_zero": gains.sel(arm=SWAPS, test="zero", drop=True),
            "swaps_resample": gains.sel(arm=SWAPS, test="resample", drop=True),
        }
    )


def _kind(gains: xr.DataArray, arm: str) -> xr.DataArray:
    own = gains.sel(arm=arm, drop=True)
    return own.sel(test="zero", drop=True) - own.sel(test="resample", drop=True)


def at_equal_loss(logs: xr.DataArray, loss: xr.DataArray, way: xr.DataArray, way_loss: xr.DataArray) -> xr.DataArray:
    """Return the change of each arm's log KL against the control where it had the same held-out loss.

    Args:
        logs: `[seed, arm, test]` at the end.
        loss: `[seed, arm]`.
        way: `[seed, step, test]`, the control's log KL on its way.
        way_loss: `[seed, step]`.

    Returns:
        `[seed, arm, test]`; the control's way is interpolated linearly, and beyond it its nearest end is taken.
    """
    found = logs.copy()
    for seed in logs["seed"].values:
        order = np.argsort(way_loss.sel(seed=seed).values)
        known = way_loss.sel(seed=seed).values[order]
        for test in logs["test"].values:
            values = way.sel(seed=seed, test=test).values[order]
            control = np.interp(loss.sel(seed=seed).values, known, values)
            found.loc[{"seed": seed, "test": test}] = logs.sel(seed=seed, test=test) - control
    return found


def over_seeds(values: Float[np.ndarray, "seed"], confidence: float = 0.95) -> tuple[list[float], float]:
    """Return the mean over seeds with its bounds by Student's t, and the two-sided p that it is 0.

    >>> over_seeds(np.array([-1.0, -2.0, -3.0]))[0][0]
    -2.0

    Args:
        values: a number for each seed, at least two.
        confidence: the confidence level.
    """
    count = len(values)
    mean, error = float(values.mean()), float(values.std(ddof=1) / count**0.5)
    half = float(stdtrit(count - 1, (1 + confidence) / 2)) * error
    p = float(2 * stdtr(count - 1, -abs(mean) / error)) if error > 0 else float(mean == 0)
    return [mean, mean - half, mean + half], p


def held_by_loudest(kl: xr.DataArray) -> float:
    """Return the largest share of a cell's KL that 5% of the passages hold.

    Args:
        kl: `[…, prompt, sublayer]`.
    """
    loudness = kl.sum("sublayer").transpose(..., "prompt").values
    top = np.sort(loudness, -1)[..., -_loud(loudness.shape[-1]) :]
    return float((top.sum(-1) / loudness.sum(-1)).max())


def without_loudest(kl: xr.DataArray) -> xr.DataArray:
    """Return mean KL divergences without the 5% of passages that are loudest over all arms of a seed and test.

    Args:
        kl: `[seed, arm, test, prompt, sublayer]`.

    Returns:
        `[seed, arm, test, sublayer]`.
    """
    loudness = kl.sum("sublayer")
    together = (loudness / loudness.mean("prompt")).sum("arm")
    limit = together.reduce(lambda values, axis: np.sort(values, axis).take(-_loud(values.shape[axis]), axis), "prompt")
    return kl.where(together < limit).mean("prompt")


def by_block(kl: xr.DataArray) -> xr.DataArray:
    """Return mean KL divergences of each of 20 blocks of passages, along `block`."""
    count = kl.sizes["prompt"]
    some = [kl.isel(prompt=slice(start, None, BLOCKS)).mean("prompt") for start in range(min(BLOCKS, count))]
    return xr.concat(some, "block")


def _loud(prompts: int) -> int:
    return max(1, round(LOUD * prompts))


def pooled_slope(x: xr.DataArray, y: xr.DataArray) -> float:
    """Return the least-squares slope of y on x over prompts, the same for all sublayers, each with its own mean.

    Args:
        x: `[prompt, sublayer]`.
        y: `[prompt, sublayer]`.
    """
    dx, dy = x - x.mean("prompt"), y - y.mean("prompt")
    return float((dx * dy).sum() / (dx**2).sum())


def falls(values: Mapping[str, Float[np.ndarray, "seed"]], order: list[str]) -> bool:
    """Return whether a number falls from each arm to the next, in all seeds."""
    return all(bool((values[b] < values[a]).all()) for a, b in pairwise(order))
