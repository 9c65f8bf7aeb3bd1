"""What every layer writes, intact and ablated, as a page draws it: in the mean, on each prompt, and by each patch."""

from typing import TypeVar

import numpy as np
import xarray as xr

from hydrascope.measures import Effects, EffectsOnly, by_patch, readings, sublayer_labels
from hydrascope.measures.labels import in_order
from hydrascope.reports.html.array_encoding import Arrays

#: Bytes that what layers write by each patch may take in a page, before they are compressed, two a number.
PATCH_BYTES = 8_000_000

Data = TypeVar("Data", xr.DataArray, Effects, EffectsOnly)


def ordered(data: Data) -> Data:
    """`data` with ablated parts and components in the order of the page."""
    return data.isel({dim: in_order(list(map(str, data[dim].values))) for dim in ("ablated", "component")})


def has_patches(results: xr.Dataset) -> bool:
    """Whether the run kept what each of several patches does: one alone is its mean."""
    return "unembed_ablated_by_patch" in results and results.sizes["patch"] > 1


def patched(results: xr.Dataset) -> int:
    """Of how many prompts, the first ones, a page keeps every patch: of as many as `PATCH_BYTES` hold."""
    if not has_patches(results):
        return 0
    read = sum(len(readings(results, str(label))) for label in np.atleast_1d(results["readout"].values))
    layers = len(sublayer_labels(results["component"]))
    one = 2 * read * layers * results.sizes["ablated"] * results.sizes["patch"]
    return min(results.sizes["prompt"], PATCH_BYTES // one)


def keep_intact(effects: Effects, prefix: str, arrays: Arrays) -> None:
    """Keep what every layer writes in the intact runs."""
    intact = effects["unembed"]
    arrays.add(f"{prefix}intact", intact.transpose("prompt", "component").values)
    arrays.add(f"{prefix}intact.mean", intact.mean("prompt").values)


def keep_ablated(effects: Effects, prefix: str, arrays: Arrays) -> None:
    """Keep what every layer writes in the ablated runs: means over prompts as they are, and each prompt's, rounded."""
    ablated = effects["unembed_ablated"].transpose("ablated", "prompt", "component")
    arrays.add(f"{prefix}ablated.mean", ablated.mean("prompt").values)
    for part, (values, columns) in enumerate(zip(ablated.values, _moved(effects), strict=True)):
        arrays.add_rounded(f"{prefix}ablated.{part}", values, columns)


def keep_patches(results: xr.Dataset, effects: Effects, prefix: str, arrays: Arrays) -> None:
    """Keep what every layer writes by each patch, rounded: of each ablated part a row a prompt and patch.

    Args:
        results: of the prompts that every patch is kept of; with none nothing is.
        effects: of these results, and maybe of more prompts, in the order of the page.
    """
    found = by_patch(results, effects.readout, effects.sigma) if results.sizes["prompt"] else None
    if found is None:
        return
    values = ordered(found).transpose("ablated", "prompt", "patch", "component").values
    for part, (each, columns) in enumerate(zip(values, _moved(effects), strict=True)):
        arrays.add_rounded(f"{prefix}patches.{part}", each.reshape(-1, each.shape[-1]), columns)


def _moved(effects: Effects) -> list[list[int]]:
    """The components that don't write in the ablated runs what they write in the intact ones, of each ablated part.

    What isn't downstream stays as it is exactly; read at the run's own σ it is scaled, as all is.
    """
    moved = (effects["is_ablated"] | effects["downstream"]).transpose("ablated", "component").values
    return [np.flatnonzero(each | (effects.sigma == "own")).tolist() for each in moved]
