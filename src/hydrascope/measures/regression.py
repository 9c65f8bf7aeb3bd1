"""Linear regression and correlation over prompts, for all ablated components at once."""

import numpy as np
import xarray as xr
from jaxtyping import Float

from hydrascope.measures.bootstrap import Bootstrap, Statistic, interval
from hydrascope.measures.compensation import compensable, compensation
from hydrascope.measures.effects import direct_effect
from hydrascope.measures.effects_type import Effects, takes_effects

#: A resample is constant if its variance is below this share of its mean square about the whole sample's mean.
_ROUNDING = 1e-12

#: Means over prompts; of values without another dimension, numbers.
Means = Float[np.ndarray, "..."] | np.float64


def regression(x: xr.DataArray, y: xr.DataArray, bootstrap: Bootstrap | None = None) -> xr.Dataset:
    """Return the least-squares fit of `y` on `x` over prompts, with confidence intervals.

    >>> fit = hs.measures.regression(-effects["direct"], -effects["total"])

    Args:
        x: [prompt, …].
        y: [prompt, …], in the unit of `x`.
        bootstrap: how intervals are drawn.

    Returns:
        `slope` (without unit), `intercept` (in the unit of `y`), `r2` (the share of the variance of y that x explains)
        and `correlation` (Pearson's), each [bound, …]. All are NaN if x is constant; if y is, the slope is 0, and `r2`
        and `correlation` are NaN.
    """
    return interval(*least_squares(x, y), bootstrap or Bootstrap())


def least_squares(x: xr.DataArray, y: xr.DataArray) -> tuple[Statistic, xr.Dataset]:
    """Return the regression as a function of means over prompts, and the samples of these means."""
    x, y = (each.transpose("prompt", ...) for each in xr.broadcast(x, y))
    at_x, at_y = x.values.astype(np.float64), y.values.astype(np.float64)
    x_mean, y_mean = at_x.mean(0), at_y.mean(0)
    # Moments about the means of the whole sample are small, and so are the rounding errors of their differences.
    dx, dy = _centred(at_x, x_mean), _centred(at_y, y_mean)
    moments = {"x": dx, "y": dy, "xx": dx * dx, "xy": dx * dy, "yy": dy * dy}

    def fit(means: xr.Dataset) -> xr.Dataset:
        line = _line(x_mean, y_mean, **{name: means[name].values for name in moments})
        return xr.Dataset({name: (means["x"].dims, values) for name, values in line.items()}, means.coords)

    others = {name: coord for name, coord in x.coords.items() if "prompt" not in coord.dims}
    return fit, xr.Dataset({name: (x.dims, values) for name, values in moments.items()}, others)


def _line(x_mean: Means, y_mean: Means, *, x: Means, y: Means, xx: Means, xy: Means, yy: Means) -> dict[str, Means]:
    """Return the fit, from the means about which moments are taken and the moments."""
    x_variance, y_variance = _variance(xx, x), _variance(yy, y)
    covariance, deviations = xy - x * y, x_variance**0.5 * y_variance**0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(x_variance > 0, covariance / x_variance, np.nan)
        correlation = np.where(deviations > 0, covariance / deviations, np.nan).clip(-1, 1)
    intercept = y_mean + y - slope * (x_mean + x)
    return {"slope": slope, "intercept": intercept, "r2": correlation**2, "correlation": correlation}


def _centred(values: Float[np.ndarray, "prompt ..."], mean: Means) -> Float[np.ndarray, "prompt ..."]:
    """Return `values` minus their mean, exactly 0 where all are equal, despite rounding."""
    return np.where(values.min(0) == values.max(0), values * 0, values - mean)


def _variance(square: Means, mean: Means) -> Means:
    """Return E[v²] − E[v]², exactly 0 where only rounding is left of it."""
    variance = square - mean**2
    return np.where(variance <= _ROUNDING * square, 0 * square, variance)


@takes_effects
def compensation_regression(effects: Effects, bootstrap: Bootstrap | None = None) -> xr.Dataset:
    """Return the regression of CE on DE over prompts, per ablated component (Figure 7d).

    As in the paper, x is DE(k), the clean `unembed` of the ablated component (Eq. 34), and y is CE(k) (Eq. 33). The
    slope is the share of the direct effect that the network restores: 1 for full repair, 0 for none, below 0 if the
    damage spreads. The ablation itself removes less than DE by the patch's own direct effect: see `restoration`.

    >>> slope = hs.measures.compensation_regression(effects)["slope"]

    Args:
        effects: on one readout.
        bootstrap: how intervals are drawn.

    Returns:
        the variables of `regression`, each [bound, ablated]; NaN for a component with nothing downstream.

    Raises:
        HydrascopeError: an ablated component wasn't read.
    """
    fit = regression(direct_effect(effects), compensation(effects)["compensation"], bootstrap)
    return fit.where(compensable(effects))


def holds_from(condition: xr.DataArray, blocks: np.ndarray, otherwise: int) -> xr.DataArray:
    """Return the first block from which on `condition` holds up to the last, else `otherwise`.

    Args:
        condition: […, ablated].
        blocks: the block of each entry along `ablated`, ascending.
        otherwise: the value where the condition doesn't hold at the last block.
    """
    holds = condition.transpose(..., "ablated")
    count = np.cumprod(holds.values[..., ::-1], axis=-1).sum(-1)
    return xr.DataArray(np.append(blocks, otherwise)[len(blocks) - count], dims=holds.dims[:-1])
