"""The scatters of a page, a point per prompt: restored on removed, and CE on DE (Figure 7)."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from hydrascope.measures import Bootstrap, Effects, Sigma, compensable, compensation, regression
from hydrascope.reports.summary import Interval, format_interval


@dataclass(frozen=True)
class Line:
    """A least-squares line over prompts, for one ablated component.

    Attributes:
        slope: the slope as text, with its bounds.
        ends: [end, coordinate], the line's ends at the smallest and the largest x.
    """

    slope: str
    ends: list[list[float]]


@dataclass(frozen=True)
class Scatter:
    """Two amounts of every ablated component, one point per prompt, in the readout's unit.

    Attributes:
        name: the name of the scatter.
        title: the title, which the ablated component's label follows.
        names: the names of the amounts, x first.
        diagonal: the label of the line on which both amounts are equal.
        caption: the name of the readout and of the reading of σ.
        sigma: the reading of σ; None if the amounts don't depend on it.
        lines: [ablated], the regression lines; None where there is no regression.
    """

    name: str
    title: str
    names: tuple[str, str]
    diagonal: str
    caption: str
    sigma: Sigma | None
    lines: list[Line | None]


def restored_on_removed(amounts: xr.Dataset, readout: str, bootstrap: Bootstrap) -> Scatter:
    """Return the scatter of restored on removed (`measures.outcome`), which doesn't depend on σ."""
    return Scatter(
        "restored on removed",
        "Restored of what is removed by ablating",
        ("removed", "restored"),
        "all restored",
        readout,
        None,
        _lines(amounts["removed"], amounts["restored"], bootstrap),
    )


def de_and_ce(effects: Effects) -> xr.Dataset:
    """Return DE (Eq. 34) and CE (Eq. 33), [prompt, ablated].

    DE is NaN for components that weren't read; CE is NaN if heads or neurons of several sublayers are ablated together.
    """
    return xr.Dataset({"DE": effects["contribution"], "CE": compensation(effects)["compensation"]})


def ce_on_de(amounts: xr.Dataset, effects: Effects, bootstrap: Bootstrap) -> Scatter:
    """Return the scatter of CE on DE; `amounts` are `de_and_ce(effects)`."""
    return Scatter(
        "CE on DE",
        "CE on DE (Figure 7) of",
        ("DE", "CE"),
        "all compensated",
        effects.caption,
        effects.read_at,
        _lines(amounts["DE"], amounts["CE"].where(compensable(effects)), bootstrap),
    )


def _lines(x: xr.DataArray, y: xr.DataArray, bootstrap: Bootstrap) -> list[Line | None]:
    fit = regression(x, y, bootstrap)
    slope, intercept = (fit[name].sel(bound="estimate", drop=True) for name in ("slope", "intercept"))
    ends = [x.min("prompt"), x.max("prompt")]
    lines = np.stack([np.stack([end.values, (intercept + slope * end).values], -1) for end in ends], 1)
    return [
        Line(format_interval(Interval.at(fit["slope"], str(ablated)), 2), line.tolist())
        if np.isfinite(line).all()
        else None
        for ablated, line in zip(x["ablated"].values, lines, strict=True)
    ]
