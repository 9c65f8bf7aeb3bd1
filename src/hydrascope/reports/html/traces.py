"""The traces of a page: the values of every sublayer before and after each ablation."""

from typing import TypeVar

import numpy as np
import xarray as xr

from hydrascope.measures import Effects, EffectsOnly, by_patch, readings, sublayer_labels
from hydrascope.measures.labels import in_order
from hydrascope.reports.html.array_encoding import Arrays

#: Bytes that the traces of single patches may take in a page before compression, at two bytes per number.
PATCH_BYTES = 8_000_000

Data = TypeVar("Data", xr.DataArray, Effects, EffectsOnly)


def ordered(data: Data) -> Data:
    """Return `data` with ablations and components in the page's order."""
    return data.isel({dim: in_order(list(map(str, data[dim].values))) for dim in ("ablated", "component")})


def has_patches(results: xr.Dataset) -> bool:
    """Whether the run kept several patches one by one; a single patch equals its mean."""
    return "unembed_ablated_by_patch" in results and results.sizes["patch"] > 1


def patched(results: xr.Dataset) -> int:
    """Return the number of first prompts whose single patches fit into `PATCH_BYTES`."""
    if not has_patches(results):
        return 0
    read = sum(len(readings(results, str(label))) for label in np.atleast_1d(results["readout"].values))
    sublayers = len(sublayer_labels(results["component"]))
    prompt_bytes = 2 * read * sublayers * results.sizes["ablated"] * results.sizes["patch"]
    return min(results.sizes["prompt"], PATCH_BYTES // prompt_bytes)


def keep_clean(effects: Effects, prefix: str, arrays: Arrays) -> None:
    """Add what every sublayer writes in the clean pass: each prompt's value and the mean."""
    clean = effects["unembed"]
    arrays.add(f"{prefix}clean_pass", clean.transpose("prompt", "component").values)
    arrays.add(f"{prefix}clean_pass.mean", clean.mean("prompt").values)


def keep_ablated(effects: Effects, prefix: str, arrays: Arrays) -> None:
    """Add what every sublayer writes after each ablation: means, and rounded prompts."""
    ablated = effects["unembed_ablated"].transpose("ablated", "prompt", "component")
    arrays.add(f"{prefix}ablated.mean", ablated.mean("prompt").values)
    for row, (values, columns) in enumerate(zip(ablated.values, _changed_columns(effects), strict=True)):
        arrays.add_rounded(f"{prefix}ablated.{row}", values, columns)


def keep_patches(results: xr.Dataset, effects: Effects, prefix: str, arrays: Arrays) -> None:
    """Add what every sublayer writes by each patch, rounded; a row is a prompt and patch.

    Args:
        results: the results of the prompts with single patches; with no prompt nothing is added.
        effects: the effects of these and perhaps more prompts, in the page's order.
        prefix: the start of the arrays' names.
        arrays: the arrays to add to.
    """
    written = by_patch(results, effects.readout, effects.sigma) if results.sizes["prompt"] else None
    if written is None:
        return
    values = ordered(written).transpose("ablated", "prompt", "patch", "component").values
    for row, (each, columns) in enumerate(zip(values, _changed_columns(effects), strict=True)):
        arrays.add_rounded(f"{prefix}patches.{row}", each.reshape(-1, each.shape[-1]), columns)


def _changed_columns(effects: Effects) -> list[list[int]]:
    """Return the columns of the components that an ablation changes, for each ablation.

    Components that aren't downstream don't change; at the ablated pass's own σ all components are rescaled.
    """
    changed = (effects["is_ablated"] | effects["downstream"]).transpose("ablated", "component").values
    return [np.flatnonzero(each | (effects.sigma == "own")).tolist() for each in changed]
