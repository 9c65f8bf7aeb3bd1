"""Numbers that were not declared: looked at after the shares were known, to find out what they rest on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from hydrascope.measures import Bootstrap, effects_only
from studies.damping.chosen import last_third
from studies.damping.estimator import Chosen, Scored, shares

#: The most confirmation prompts on which the content beyond the embeddings is ablated.
PROMPTS = 150


def only(chosen: Chosen, labels: Sequence[str]) -> Chosen:
    """Return some of the chosen components, with their weights."""
    kept = [(label, weight) for label, weight in zip(chosen.labels, chosen.weights, strict=True) if label in labels]
    return Chosen(tuple(label for label, _ in kept), tuple(weight for _, weight in kept))


def by_depth(measured: xr.Dataset, chosen: Chosen, depth: int, bootstrap: Bootstrap) -> dict[str, xr.Dataset]:
    """Return `shares` of the chosen components of the middle third of the blocks, and of the last."""
    last = last_third(chosen.labels, depth)
    middle = [label for label in chosen.labels if label not in last]
    return {
        name: shares(measured, _everywhere(measured, only(chosen, labels)), bootstrap)
        for name, labels in (("middle", middle), ("last", last))
        if labels
    }


def without_one(measured: xr.Dataset, chosen: Chosen) -> dict[str, float]:
    """Return the share of content without each component in turn."""
    once = Bootstrap(resamples=1)
    return {
        out: float(shares(measured, _everywhere(measured, only(chosen, rest)), once)["share"][0])
        for out in chosen.labels
        if (rest := [label for label in chosen.labels if label != out])
    }


def equally_weighted(measured: xr.Dataset, chosen: Chosen, bootstrap: Bootstrap) -> xr.Dataset:
    """Return `shares` where each component counts by what it removes, not by its own spread."""
    return shares(measured, _everywhere(measured, replace(chosen, weights=(1.0,) * len(chosen.labels))), bootstrap)


def content_given(measured: xr.Dataset, chosen: Chosen, clean: Float[np.ndarray, "prompt"]) -> float:
    """Return content repair h among prompts of equal clean readout, by a regression on it, too.

    A content whose loss merely pulls the readout towards its mean would show as content repair where what is removed
    goes with the readout.
    """
    removed, content = (_residual(measured[name].sel(ablated=list(chosen.labels)).values, clean) for name in _PAIR)
    weights = np.array(chosen.weights)
    return float((weights * (removed * content).mean(0)).sum() / (weights * (removed**2).mean(0)).sum())


_PAIR = ("removed", "content")


def _residual(values: Float[np.ndarray, "prompt ablated"], on: Float[np.ndarray, "prompt"]) -> np.ndarray:
    centred, line = values - values.mean(0), on - on.mean()
    return np.asarray(centred - np.outer(line, line @ centred / (line @ line)))


def beyond_embeddings(
    measured: xr.Dataset, beyond: xr.Dataset, readout: str, chosen: Chosen, bootstrap: Bootstrap
) -> tuple[xr.Dataset, xr.DataArray]:
    """Return `shares` with the content beyond the tokens' embeddings in place of the whole content.

    Beside them [bound], content repair less that beyond the embeddings, on the same prompts: slopes on one variable can
    be subtracted.

    Args:
        measured: `responses`; the first prompts are those of `beyond`.
        beyond: the results of ablating the content beyond the embeddings.
        readout: the readout's label.
        chosen: the components.
        bootstrap: how intervals are drawn.
    """
    data = effects_only(beyond, readout).data.sel(ablated=list(chosen.labels)).reset_coords(drop=True)
    first = measured.sel(ablated=list(chosen.labels)).isel(prompt=slice(beyond.sizes["prompt"]))
    swapped = first.assign(content=data["total"] - data["direct"])
    rest = first.assign(content=first["content"] - swapped["content"])
    found, less = (shares(each, _everywhere(first, chosen), bootstrap) for each in (swapped, rest))
    return found, less["content"]


def _everywhere(measured: xr.Dataset, chosen: Chosen) -> list[Scored]:
    return [Scored(np.ones(measured.sizes["prompt"], bool), chosen)]


def median_component(components: Mapping[str, Any]) -> dict[str, float]:
    """Return the median of damping and of content repair over components."""
    damping, content = np.median([*components["each"].values()], axis=0)
    return {"damping": float(damping), "content": float(content)}
