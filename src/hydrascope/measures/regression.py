"""Linear regression and correlation over prompts, for every ablated part at once."""

import numpy as np
import xarray as xr

from hydrascope.measures.bootstrap import Bootstrap, Statistic, interval
from hydrascope.measures.compensation import compensable, compensation
from hydrascope.measures.effects import direct_effect
from hydrascope.measures.reading import per_prompt

#: A resample whose variance is below this share of its mean square (about the whole sample's mean) is
#: constant.
_ROUNDING = 1e-12


def regression(x: xr.DataArray, y: xr.DataArray, bootstrap: Bootstrap | None = None) -> xr.Dataset:
    """Least squares of `y` on `x` over prompts, with bootstrap confidence intervals.

    Args:
        x, y: [prompt, …], in logits.

    Returns:
        `slope` (without unit), `intercept` (logits), `r2` (the share of the variance of y that x explains,
        without unit) and `correlation` (Pearson's), each [bound, …]. All are NaN where x doesn't vary; where
        y doesn't, the slope is 0 and `r2` and `correlation` are NaN.
    """
    return interval(*least_squares(x, y), bootstrap or Bootstrap())


def least_squares(x: xr.DataArray, y: xr.DataArray) -> tuple[Statistic, xr.Dataset]:
    """The regression as a function of means over prompts, and what the means are to be taken of."""
    x, y = xr.broadcast(x.astype(np.float64).drop_attrs(), y.astype(np.float64).drop_attrs())
    x_mean, y_mean = x.mean("prompt", skipna=False), y.mean("prompt", skipna=False)
    # Moments about the means of the whole sample: what the differences below are taken of is then small.
    dx, dy = _centred(x, x_mean), _centred(y, y_mean)

    def fit(means: xr.Dataset) -> xr.Dataset:
        covariance = means["xy"] - means["x"] * means["y"]
        x_variance = _variance(means["xx"], means["x"])
        y_variance = _variance(means["yy"], means["y"])
        slope = covariance / x_variance.where(x_variance > 0)
        deviations = x_variance**0.5 * y_variance**0.5
        correlation = (covariance / deviations.where(deviations > 0)).clip(-1, 1)
        return xr.Dataset(
            {
                "slope": slope,
                "intercept": y_mean + means["y"] - slope * (x_mean + means["x"]),
                "r2": correlation**2,
                "correlation": correlation,
            }
        )

    return fit, xr.Dataset({"x": dx, "y": dy, "xx": dx * dx, "xy": dx * dy, "yy": dy * dy})


def _centred(values: xr.DataArray, mean: xr.DataArray) -> xr.DataArray:
    """`values` less their mean; exactly 0 where they are all the same, which rounding would hide."""
    constant = values.min("prompt") == values.max("prompt")
    return (values - mean).where(~constant, values * 0)


def _variance(square: xr.DataArray, mean: xr.DataArray) -> xr.DataArray:
    """E[v²] − E[v]², exactly 0 where no more than rounding is left of it."""
    variance = square - mean**2
    return variance.where(~(variance <= _ROUNDING * square), 0 * square)


def compensation_regression(results: xr.Dataset, bootstrap: Bootstrap | None = None) -> xr.Dataset:
    """The compensatory effect regressed on the direct effect, per ablated part (the paper's Figure 7d).

    As the paper does, x is DE(k) = `unembed` of the ablated component in the intact network (Eq. 34), and y
    is CE(k) (Eq. 33), one point a prompt. The slope is the share of the direct effect that the network
    restores, per logit of it: 1 for full repair, 0 for none, below 0 where the damage spreads. What the
    ablation really takes away is less by what the patches add: see `restoration`.

    Returns:
        as `regression`, each [bound, ablated]. Of a part with nothing downstream, all are NaN.

    Raises:
        HydrascopeError: a part was ablated that wasn't read.
    """
    effects = per_prompt(results)
    fit = regression(direct_effect(effects), compensation(effects)["compensation"], bootstrap)
    return fit.where(compensable(effects))


def holds_from(condition: xr.DataArray, positions: np.ndarray, otherwise: int) -> xr.DataArray:
    """The first of the layers from which on `condition` […, ablated] holds up to the last, else `otherwise`.

    Args:
        positions: the layer of each entry along `ablated`, ascending.
    """
    holds = condition.transpose(..., "ablated")
    run = np.cumprod(holds.values[..., ::-1], axis=-1).sum(-1)
    return xr.DataArray(np.append(positions, otherwise)[len(positions) - run], dims=holds.dims[:-1])
