"""The share of content in a response, pooled over components.

Components are chosen on prompts that are not scored. Each prompt gives moments; the shares are functions of their
means, so that resamples of the prompts are cheap (`hydrascope.measures.bootstrap`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Shaped

import hydrascope as hs
from hydrascope.components.part import BOOST, Part
from hydrascope.measures import Bootstrap, compensation, effects_only, interval, own_change, per_prompt, select_part
from hydrascope.measures.labels import single_ablations
from hydrascope.measures.restoration import drop_unbounded

#: The scale at which effects are read: the model's own in each pass, or that of the clean pass.
Scale = Literal["own", "clean"]

#: Products of the variables of `responses`, by the names of their means.
_PRODUCTS = {
    "removed²": ("removed", "removed"),
    "removed·restored": ("removed", "restored"),
    "removed·content": ("removed", "content"),
    "pushed²": ("pushed", "pushed"),
    "pushed·damped": ("pushed", "damped"),
    "doubled²": ("doubled", "doubled"),
    "doubled·undone": ("doubled", "undone"),
}

#: Sums that are denominators alone.
_BELOW = ("h + g", "h + slope", "origins")
#: The denominator of each ratio.
_DENOMINATORS = {
    "boost_ratio": "whole",
    "share": "h + g",
    "share_of_slopes": "h + slope",
    "share_of_origins": "origins",
}


@dataclass(frozen=True)
class Chosen:
    """The components that are pooled.

    Attributes:
        labels: their labels.
        weights: the weight of each.
    """

    labels: tuple[str, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Scored:
    """The prompts that some components are scored on.

    Attributes:
        prompts: whether each prompt is scored, `[prompt]`.
        chosen: the components, chosen on other prompts.
    """

    prompts: Bool[np.ndarray, "prompt"]
    chosen: Chosen


def responses(results: xr.Dataset, readout: str, scale: Scale = "own") -> xr.Dataset:
    """Return effects of each ablation and its parts, and the responses to them.

    Args:
        results: of a run of `hydrascope.Split`.
        readout: the label of the readout that is read and that splits.
        scale: `own` reads total and direct effect; `clean` the compensatory effect and the component's own change, at
            the clean pass's σ.

    Returns:
        each [prompt, ablated], in the readout's unit: what is taken away by the whole ablation (`removed`), its readout
        part (`pushed`) and its opposite (`doubled`); and what the rest of the network does about each (`restored`,
        `damped`, `undone`), and about the content alone (`content`).
    """
    removed, restored = taken_and_answered(single_ablations(results), readout, scale)
    pushed, damped = taken_and_answered(select_part(results, Part("readout", readout)), readout, scale)
    _, content = taken_and_answered(select_part(results, Part("content", readout)), readout, scale)
    doubled, undone = taken_and_answered(select_part(results, BOOST), readout, scale)
    return xr.Dataset(
        {
            "removed": removed,
            "restored": restored,
            "pushed": pushed,
            "damped": damped,
            "content": content,
            "doubled": doubled,
            "undone": undone,
        }
    )


def taken_and_answered(results: xr.Dataset, readout: str, scale: Scale = "own") -> tuple[xr.DataArray, xr.DataArray]:
    """Return what each change takes away, and what the rest of the network does about it: each [prompt, ablated].

    Args:
        results: of a sweep, or of one part of a split.
        readout: the label of the readout.
        scale: as for `responses`.
    """
    if scale == "own":
        data = effects_only(results, readout).data.reset_coords(drop=True)
        return -data["direct"], data["total"] - data["direct"]
    effects = per_prompt(results, readout, "clean")
    changed, answered = own_change(effects), compensation(effects)["compensation"]
    return -changed.reset_coords(drop=True), answered.reset_coords(drop=True)


def choose(measured: xr.Dataset, candidates: Sequence[str], least_slope: float, least_removed: float) -> Chosen:
    """Choose the components that remove something, part of which comes back.

    Args:
        measured: `responses` on the prompts to choose on.
        candidates: the labels to choose from.
        least_slope: the slope of `restored` on `removed` must be larger.
        least_removed: the mean |`removed`| must be larger, in the readout's unit.

    Returns:
        the components, weighted by 1/variance of `removed`.
    """
    removed, restored = (measured[name].sel(ablated=list(candidates)) for name in ("removed", "restored"))
    spread = removed.var("prompt")
    covariance = (removed * restored).mean("prompt") - removed.mean("prompt") * restored.mean("prompt")
    good = (covariance > least_slope * spread) & (abs(removed).mean("prompt") > least_removed) & (spread > 0)
    kept = spread.isel(ablated=good.values)
    return Chosen(tuple(map(str, kept["ablated"].values)), tuple((1 / kept).values.tolist()))


def weigh(measured: xr.Dataset, labels: Sequence[str]) -> Chosen:
    """Return given components, weighted as in `choose`."""
    spread = measured["removed"].sel(ablated=list(labels)).var("prompt")
    return Chosen(tuple(labels), tuple((1 / spread).values.tolist()))


def both_ways(prompts: int, choices: tuple[Chosen, Chosen]) -> list[Scored]:
    """Return both halves of some prompts, each with the components chosen on the other.

    Args:
        prompts: the number of prompts; the first half are those at even places.
        choices: the components chosen on the first half, and on the second.
    """
    even = np.arange(prompts) % 2 == 0
    return [Scored(~even, choices[0]), Scored(even, choices[1])]


def shares(measured: xr.Dataset, scored: Sequence[Scored], bootstrap: Bootstrap) -> xr.Dataset:
    """Return the pooled slopes and the share of content, with intervals over prompts.

    Sums over components are weighted; each component's slope has its own intercept.

    Args:
        measured: `responses`.
        scored: the components that are pooled, and the prompts that score them.
        bootstrap: how intervals are drawn.

    Returns:
        each [bound]:

        - `whole`, `readout` and `boost`: slopes of `restored` on `removed`, `damped` on `pushed`, `undone` on
          `doubled`; `boost_ratio` = boost/whole;
        - `damping` g = Σ damped·pushed / Σ pushed², through the origin; `content` h, the slope of `content` on
          `removed`; `share` = h/(h + g);
        - `share_of_slopes` = h/(h + readout), and `share_of_origins`, with h through the origin, too;
        - `missing` = whole − readout − h, the response to both parts at once beyond the responses to each;
        - `one_sided`, the energy of ½(restored + undone) over that of it and of ½(restored − undone).

        Bounds of a ratio are NaN if the interval of its denominator contains 0 (Fieller 1954).
    """
    found = interval(_statistic(_weights(scored)), _moments(measured, scored), bootstrap)
    bounded = {name: drop_unbounded(found[name], found[below]) for name, below in _DENOMINATORS.items()}
    return found.assign(bounded).drop_vars(_BELOW)


def share_without(measured: xr.Dataset, scored: Sequence[Scored], left_out: Shaped[np.ndarray, "prompt"]) -> float:
    """Return the share of content without some prompts."""
    kept = np.setdiff1d(np.arange(measured.sizes["prompt"]), left_out)
    return _share(_moments(measured, scored).isel(prompt=kept), scored)


def share_of_blocks(measured: xr.Dataset, scored: Sequence[Scored], blocks: int = 20) -> float:
    """Return the median of the share of content over blocks of neighbouring prompts, at least four in each."""
    moments, prompts = _moments(measured, scored), measured.sizes["prompt"]
    parts = np.array_split(np.arange(prompts), min(blocks, prompts // 4))
    return float(np.median([_share(moments.isel(prompt=part), scored) for part in parts]))


def loudest(measured: xr.Dataset, scored: Sequence[Scored], share: float = 0.05) -> tuple[np.ndarray, float]:
    """Return the prompts that hold most of Σ|removed|, and the share of it that they hold.

    Each component counts in units of its standard deviation.

    Args:
        measured: `responses`.
        scored: as for `shares`.
        share: the share of the prompts to return.
    """
    size = sum(
        (abs(measured["removed"].sel(ablated=list(each.chosen.labels)).values) * each.prompts[:, None])
        @ np.sqrt(each.chosen.weights)
        for each in scored
    )
    top = np.argsort(-size, kind="stable")[: int(np.ceil(share * len(size)))]
    return top, float(size[top].sum() / size.sum())


def _share(moments: xr.Dataset, scored: Sequence[Scored]) -> float:
    means = moments.mean("prompt").expand_dims("resample")
    return float(_statistic(_weights(scored))(means)["share"][0])


def _weights(scored: Sequence[Scored]) -> xr.DataArray:
    return xr.DataArray(np.concatenate([each.chosen.weights for each in scored]), dims="entry")


def _moments(measured: xr.Dataset, scored: Sequence[Scored]) -> xr.Dataset:
    """Return each prompt's moments [prompt, entry]; an entry is a component on the prompts that score it."""

    def along_entries(name: str) -> Float[np.ndarray, "prompt entry"]:
        return np.concatenate([measured[name].sel(ablated=list(each.chosen.labels)).values for each in scored], 1)

    counted = np.concatenate(
        [np.repeat(each.prompts[:, None], len(each.chosen.labels), 1).astype(float) for each in scored], 1
    )
    values = {str(name): along_entries(str(name)) for name in measured}
    products = {name: values[x] * values[y] for name, (x, y) in _PRODUCTS.items()}
    even, odd = 0.5 * (values["restored"] + values["undone"]), 0.5 * (values["restored"] - values["undone"])
    every = {**values, **products, "even²": even**2, "energy": even**2 + odd**2}
    named = {name: (("prompt", "entry"), each * counted) for name, each in every.items()}
    return xr.Dataset({**named, "counted": (("prompt", "entry"), counted)})


def _statistic(weights: xr.DataArray) -> hs.measures.bootstrap.Statistic:
    """Return `shares` as a function of means over prompts."""

    def statistic(means: xr.Dataset) -> xr.Dataset:
        mean = means / means["counted"]

        def pooled(name: str) -> xr.DataArray:
            return (weights * mean[name]).sum("entry", skipna=False)

        def slope(product: str, square: str) -> xr.DataArray:
            x, y = _PRODUCTS[product]
            covariance = (weights * (mean[product] - mean[x] * mean[y])).sum("entry", skipna=False)
            variance = (weights * (mean[square] - mean[x] ** 2)).sum("entry", skipna=False)
            return covariance / variance

        whole, readout = slope("removed·restored", "removed²"), slope("pushed·damped", "pushed²")
        boost, content = slope("doubled·undone", "doubled²"), slope("removed·content", "removed²")
        damping = pooled("pushed·damped") / pooled("pushed²")
        from_origin = pooled("removed·content") / pooled("removed²")
        return xr.Dataset(
            {
                "whole": whole,
                "boost": boost,
                "boost_ratio": boost / whole,
                "readout": readout,
                "damping": damping,
                "content": content,
                "share": content / (content + damping),
                "share_of_slopes": content / (content + readout),
                "share_of_origins": from_origin / (from_origin + damping),
                "missing": whole - readout - content,
                "one_sided": pooled("even²") / pooled("energy"),
                "h + g": content + damping,
                "h + slope": content + readout,
                "origins": from_origin + damping,
            }
        )

    return statistic
