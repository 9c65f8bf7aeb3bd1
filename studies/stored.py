"""Numbers of stored results, as `results.json` holds them."""

from typing import Any

import numpy as np
import xarray as xr

from hydrascope.measures import BOUNDS

Numbers = dict[str, Any]


def origin_of(stored: xr.Dataset) -> Numbers:
    """Return the weights, the version and the number of blocks that a result was measured with."""
    attrs = stored.attrs
    return {
        "weights": attrs["revision"],
        "quantization": attrs.get("quantization", ""),
        "hydrascope": attrs["hydrascope"],
        "blocks": int(attrs["depth"]),
    }


def prompts_of(stored: xr.Dataset) -> Numbers:
    """Return the number of a result's prompts, and their hash."""
    return {"number": stored.sizes["prompt"], "hash": stored.attrs["prompts_hash"]}


def by_name(found: xr.Dataset) -> Numbers:
    """Return the estimate and the bounds of each variable."""
    return {str(name): bounds_of(each) for name, each in found.items()}


def bounds_of(found: xr.DataArray) -> list[float | None]:
    """Return estimate, low and high; None where there is none.

    >>> bounds_of(xr.DataArray([0.5, float("nan"), 1.00004], {"bound": ["estimate", "low", "high"]}, "bound"))
    [0.5, None, 1.0]
    """
    return [rounded(float(found.sel(bound=bound))) for bound in BOUNDS]


def rounded(value: float) -> float | None:
    """Return a number with four decimals; None if it isn't finite."""
    return round(float(value), 4) if np.isfinite(value) else None
