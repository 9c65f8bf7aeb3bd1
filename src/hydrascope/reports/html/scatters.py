"""What a page compares prompt by prompt: restored on removed, and CE on DE, as the paper's Figure 7 does."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from hydrascope.measures import Bootstrap, Effects, Sigma, compensable, compensation, regression
from hydrascope.reports.summary import Interval, format_interval


@dataclass(frozen=True)
class Line:
    """Least squares over prompts, at one ablated part.

    Attributes:
        slope: in words, with its bounds.
        ends: [end, x and y], where the points begin and end.
    """

    slope: str
    ends: list[list[float]]


@dataclass(frozen=True)
class Scatter:
    """One amount on another, a point a prompt, of every ablated part; in the readout's unit.

    Attributes:
        name: what it shows, in words.
        title: the same, followed by the ablated part's label.
        names: of the amounts, x first.
        whole: what it means that both are the same.
        caption: what was read, in words.
        sigma: under which reading of σ; none where it doesn't depend on it.
        lines: of each ablated part; none where there is no regression.
    """

    name: str
    title: str
    names: tuple[str, str]
    whole: str
    caption: str
    sigma: Sigma | None
    lines: list[Line | None]


def restored_on_removed(amounts: xr.Dataset, readout: str, bootstrap: Bootstrap) -> Scatter:
    """What is restored of what an ablation removes, of `hydrascope.measures.outcome`; σ doesn't matter."""
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
    """DE (Eq. 34) and CE (Eq. 33), [prompt, ablated]; NaN where one isn't known.

    DE isn't of what wasn't read, nor CE where heads or neurons of several layers are ablated together.
    """
    return xr.Dataset({"DE": effects["contribution"], "CE": compensation(effects)["compensation"]})


def ce_on_de(amounts: xr.Dataset, effects: Effects, bootstrap: Bootstrap) -> Scatter:
    """The compensatory effect on the direct effect, of `de_and_ce` of these effects."""
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
    found = np.stack([np.stack([end.values, (intercept + slope * end).values], -1) for end in ends], 1)
    return [
        Line(format_interval(Interval.at(fit["slope"], str(part)), 2), line.tolist())
        if np.isfinite(line).all()
        else None
        for part, line in zip(x["ablated"].values, found, strict=True)
    ]
