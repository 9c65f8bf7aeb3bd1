"""Damping and what content does, in every cell and between cells, pooled over sublayers.

Each sentence gives moments of every cell; all numbers are functions of their means, so that a resample takes a sentence
out of all cells at once.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float, Shaped

from hydrascope.components.part import Part
from hydrascope.measures import Bootstrap, interval, select_part, simultaneous
from hydrascope.measures.bootstrap import Statistic
from hydrascope.measures.labels import single_ablations
from studies.damping.estimator import Scale, taken_and_answered

#: Blocks of sentences whose median guards against loud sentences.
_BLOCKS = 20
#: The share of the sentences that count as loud.
_LOUD = 0.05


def effects_of(
    results: Mapping[str, xr.Dataset],
    log_p: Mapping[str, Sequence[float]],
    readout: str,
    scale: Scale = "own",
    prompts: int | None = None,
) -> xr.Dataset:
    """Return effects of each sublayer's ablation and its parts in several cells, and the responses to them.

    Args:
        results: of the study's split, by cell; their first prompts are about the same sentences.
        log_p: the log p of the target in the clean pass of each sentence, by cell.
        readout: the label of the readout.
        scale: as for `studies.damping.estimator.responses`.
        prompts: the number of sentences; all by default.

    Returns:
        each [cell, prompt, ablated], in the readout's unit: what the whole ablation takes away (`removed`) and its
        readout part (`pushed`), and what the rest of the network does about each (`restored`, `damped`); for the first
        readout also what it does about the content alone (`content`), and what is lost with the content (`lost`).
        `log_p` [cell, prompt] is as given.
    """
    cells = [
        _of_cell(each.isel(prompt=slice(prompts)), readout, scale).assign(log_p=("prompt", log_p[cell][:prompts]))
        for cell, each in results.items()
    ]
    return xr.concat(cells, "cell").assign_coords(cell=list(results))


def _of_cell(results: xr.Dataset, readout: str, scale: Scale) -> xr.Dataset:
    removed, restored = taken_and_answered(single_ablations(results), readout, scale)
    pushed, damped = taken_and_answered(select_part(results, Part("readout", readout)), readout, scale)
    found = {"removed": removed, "restored": restored, "pushed": pushed, "damped": damped}
    if readout == str(results["readout"].values[0]):
        taken, found["content"] = taken_and_answered(select_part(results, Part("content", readout)), readout, scale)
        found["lost"] = taken - found["content"]
    return xr.Dataset(found).astype(np.float64)


def weights_of(effects: xr.Dataset) -> xr.DataArray:
    """Return the weight of each sublayer, `[ablated]`: 1/variance of `removed` over sentences and cells."""
    return 1 / effects["removed"].var(("cell", "prompt"))


def by_cell(
    effects: xr.Dataset, weights: xr.DataArray, contrasts: Iterable[tuple[str, str]], bootstrap: Bootstrap
) -> tuple[xr.Dataset, xr.Dataset]:
    """Return the pooled numbers of each cell, and differences of cells.

    Args:
        effects: of `effects_of`.
        weights: the weight of each sublayer.
        contrasts: pairs of cells; the second is subtracted.
        bootstrap: how intervals are drawn.

    Returns:
        [bound, cell] and [bound, contrast]: `damping` g through the origin; and if there is content, `content_repair`
        h, the slope of `content` on `removed`; `lost`, the mean of what is lost with content over sublayers; and
        `size`, its root mean square.
    """
    pairs, moments = list(contrasts), _moments(effects)
    found = interval(_cells(weights), moments, bootstrap)
    if not pairs:
        return found, found.isel(cell=slice(0)).rename(cell="contrast")

    def between(means: xr.Dataset) -> xr.Dataset:
        values = _cells(weights)(means)
        changes = [values.sel(cell=last, drop=True) - values.sel(cell=first, drop=True) for last, first in pairs]
        return xr.concat(changes, "contrast")

    return found, interval(between, moments, bootstrap)


def _moments(effects: xr.Dataset) -> xr.Dataset:
    """Return each sentence's products [prompt, cell, ablated]."""
    moments = xr.Dataset({"pushed²": effects["pushed"] ** 2, "pushed·damped": effects["pushed"] * effects["damped"]})
    if "content" in effects:
        removed, content = effects["removed"], effects["content"]
        moments = moments.assign({"removed": removed, "content": content, "removed²": removed**2,
                                  "removed·content": removed * content, "lost": effects["lost"],
                                  "lost²": effects["lost"] ** 2})  # fmt: skip
    return moments.transpose("prompt", "cell", "ablated")


def _cells(weights: xr.DataArray) -> Statistic:
    def statistic(means: xr.Dataset) -> xr.Dataset:
        def pooled(values: xr.DataArray) -> xr.DataArray:
            return (weights * values).sum("ablated")

        found = {"damping": pooled(means["pushed·damped"]) / pooled(means["pushed²"])}
        if "content" in means:
            covariance = means["removed·content"] - means["removed"] * means["content"]
            found["content_repair"] = pooled(covariance) / pooled(means["removed²"] - means["removed"] ** 2)
            found["lost"] = means["lost"].mean("ablated")
            found["size"] = means["lost²"].mean("ablated") ** 0.5
        return xr.Dataset(found)

    return statistic


def change(effects: xr.Dataset, weights: xr.DataArray, bootstrap: Bootstrap) -> xr.DataArray:
    """Return Δg: damping in the second of two cells minus damping in the first, `[bound]`."""
    first, second = effects["cell"].values
    return by_cell(effects, weights, [(second, first)], bootstrap)[1]["damping"].isel(contrast=0)


def change_at_equal_confidence(effects: xr.Dataset, weights: xr.DataArray, bootstrap: Bootstrap) -> xr.DataArray:
    """Return Δg of two cells at no change of the target's log p, by regression, `[bound]`.

    In each cell damped = (α + β·c)·pushed is fitted by weighted least squares over sentences and sublayers, c the
    sentence's change of log p; Δg is the difference of the two α.
    """
    moved = effects["log_p"].isel(cell=1) - effects["log_p"].isel(cell=0)
    sums = {
        name: (weights * effects["pushed"] * effects[other]).sum("ablated")
        for name, other in (("damped", "damped"), ("pushed", "pushed"))
    }
    moments = xr.Dataset(
        {f"{name} {power}": each * moved**power for name, each in sums.items() for power in range(3)}
    ).transpose("prompt", "cell")

    def statistic(means: xr.Dataset) -> xr.Dataset:
        above = means["damped 0"] * means["pushed 2"] - means["damped 1"] * means["pushed 1"]
        level = above / (means["pushed 0"] * means["pushed 2"] - means["pushed 1"] ** 2)
        return xr.Dataset({"change": level.isel(cell=1) - level.isel(cell=0)})

    return interval(statistic, moments, bootstrap)["change"]


def change_of_each(effects: xr.Dataset, bootstrap: Bootstrap) -> xr.DataArray:
    """Return Δg of each sublayer between two cells, with bounds that hold for all at once, `[bound, ablated]`."""

    def statistic(means: xr.Dataset) -> xr.Dataset:
        damping = means["pushed·damped"] / means["pushed²"]
        return xr.Dataset({"change": damping.isel(cell=1) - damping.isel(cell=0)})

    return simultaneous(statistic, _moments(effects), bootstrap, "ablated")["change"]


def slope_on_confidence(effects: xr.Dataset, bootstrap: Bootstrap) -> xr.DataArray:
    """Return the slope of what is lost with content on the target's log p, within sentences, `[bound]`."""
    lost, log_p = effects["lost"].mean("ablated"), effects["log_p"]
    x, y = (each - each.mean("cell") for each in (log_p, lost))
    moments = xr.Dataset({"xy": (x * y).sum("cell"), "xx": (x * x).sum("cell")})
    return interval(lambda means: xr.Dataset({"slope": means["xy"] / means["xx"]}), moments, bootstrap)["slope"]


def loudest(effects: xr.Dataset, weights: xr.DataArray) -> tuple[Shaped[np.ndarray, "prompt"], float]:
    """Return the 5% of the sentences that hold most of Σ weight · pushed², and the share that they hold."""
    size = (weights * effects["pushed"] ** 2).sum(("ablated", "cell")).values
    top = np.argsort(-size, kind="stable")[: max(1, round(_LOUD * len(size)))]
    return top, float(size[top].sum() / size.sum())


def change_without(effects: xr.Dataset, weights: xr.DataArray, left_out: Sequence[int]) -> float:
    """Return Δg of two cells without some sentences."""
    return _change(effects.isel(prompt=np.setdiff1d(np.arange(effects.sizes["prompt"]), left_out)), weights)


def change_of_blocks(effects: xr.Dataset, weights: xr.DataArray) -> float:
    """Return the median of Δg over blocks of sentences, at least two in each."""
    prompts = np.arange(effects.sizes["prompt"])
    parts = np.array_split(prompts, max(1, min(_BLOCKS, len(prompts) // 2)))
    return float(np.median([_change(effects.isel(prompt=part), weights) for part in parts]))


def _change(effects: xr.Dataset, weights: xr.DataArray) -> float:
    damping = _cells(weights)(_moments(effects).mean("prompt"))["damping"]
    return float(damping.isel(cell=1) - damping.isel(cell=0))


def kept(effects: xr.Dataset, most: float) -> Float[np.ndarray, "prompt"]:
    """Return the places of the sentences whose target changes its log p by less than `most` between two cells."""
    moved = effects["log_p"].isel(cell=1) - effects["log_p"].isel(cell=0)
    return np.flatnonzero(abs(moved.values) < most)
