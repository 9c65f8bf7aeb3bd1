"""Linear regression and correlation over prompts, for every ablated part at once."""

import numpy as np
import xarray as xr
from jaxtyping import Float

from hydrascope.measures.bootstrap import Bootstrap, Statistic, interval
from hydrascope.measures.compensation import compensable, compensation
from hydrascope.measures.effects import direct_effect
from hydrascope.measures.effects_type import Effects, takes_effects

#: A resample whose variance is below this share of its mean square (about the whole sample's mean) is
#: constant.
_ROUNDING = 1e-12

#: Means over prompts.
Means = Float[np.ndarray, "..."]


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
    x, y = (each.transpose("prompt", ...) for each in xr.broadcast(x, y))
    at_x, at_y = x.values.astype(np.float64), y.values.astype(np.float64)
    x_mean, y_mean = at_x.mean(0), at_y.mean(0)
    # Moments about the means of the whole sample: what the differences in a line are taken of is then small.
    dx, dy = _centred(at_x, x_mean), _centred(at_y, y_mean)
    moments = {"x": dx, "y": dy, "xx": dx * dx, "xy": dx * dy, "yy": dy * dy}

    def fit(means: xr.Dataset) -> xr.Dataset:
        found = _line(x_mean, y_mean, **{name: means[name].values for name in moments})
        return xr.Dataset({name: (means["x"].dims, values) for name, values in found.items()}, means.coords)

    others = {name: coord for name, coord in x.coords.items() if "prompt" not in coord.dims}
    return fit, xr.Dataset({name: (x.dims, values) for name, values in moments.items()}, others)


def _line(x_mean: Means, y_mean: Means, *, x: Means, y: Means, xx: Means, xy: Means, yy: Means) -> dict[str, Means]:
    """Given the means about which the moments are taken, and the moments."""
    x_variance, y_variance = _variance(xx, x), _variance(yy, y)
    covariance, deviations = xy - x * y, x_variance**0.5 * y_variance**0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(x_variance > 0, covariance / x_variance, np.nan)
        correlation = np.where(deviations > 0, covariance / deviations, np.nan).clip(-1, 1)
    intercept = y_mean + y - slope * (x_mean + x)
    return {"slope": slope, "intercept": intercept, "r2": correlation**2, "correlation": correlation}


def _centred(values: Float[np.ndarray, "prompt ..."], mean: Means) -> Float[np.ndarray, "prompt ..."]:
    """`values` less their mean; exactly 0 where they are all the same, which rounding would hide."""
    return np.where(values.min(0) == values.max(0), values * 0, values - mean)


def _variance(square: Means, mean: Means) -> Means:
    """E[v²] − E[v]², exactly 0 where no more than rounding is left of it."""
    variance = square - mean**2
    return np.where(variance <= _ROUNDING * square, 0 * square, variance)


@takes_effects
def compensation_regression(effects: Effects, bootstrap: Bootstrap | None = None) -> xr.Dataset:
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
