"""Checks that a sweep and a mediation measured the same, so that one picture may show both."""

import numpy as np
import xarray as xr

from hydrascope.measures import select_readout
from hydrascope.utils.errors import HydrascopeError

#: The attributes that two results of one measurement share, and their names in messages.
_SHARED = {
    "revision": "weights",
    "config_hash": "configuration of the model",
    "dtype": "dtype",
    "ablation": "ablation",
    "ablation_hash": "ablation",
    "patches": "number of patches",
    "seed": "seed",
    "different_target": "choice of patches",
    "noise_scale": "scale of noise",
    "positions": "ablated positions",
    "target": "target",
    "chat_template": "chat template",
    "depth": "number of blocks",
}
#: The largest difference of the total effects of one ablation in two results, as a share of their size. Rounding in
#: bfloat16 stays below it, other patches don't.
_APART = 0.1


def require_same_measurement(sweep: xr.Dataset, mediation: xr.Dataset, ablated: str, readout: str) -> None:
    """Refuse a mediation that can't be shown together with a sweep.

    Prompts, model, ablation, patches, positions and target must agree, and so must the total effects of the ablation.

    Args:
        sweep: the results of single ablations.
        mediation: the results of a mediation.
        ablated: the label of an ablation in both.
        readout: the label of a readout in both.

    Raises:
        HydrascopeError: they differ; the message names the first difference.
    """
    counts = [each.sizes["prompt"] for each in (sweep, mediation)]
    if counts[0] != counts[1]:
        raise _differ("number of prompts", *(f"{count:,}" for count in counts))
    for name in ("text", "target", "patch_prompt"):
        if name in sweep and name in mediation and not _equal(sweep[name], mediation[name]):
            raise _differ({"text": "prompts", "target": "targets", "patch_prompt": "patches"}[name])
    for name, meaning in _SHARED.items():
        values = [each.attrs.get(name) for each in (sweep, mediation)]
        if values[0] != values[1]:
            raise _differ(meaning, *map(_in_words, values))
    totals = [
        select_readout(each, readout)["total"].sel(ablated=ablated).mean("patch", dtype=np.float64).values
        for each in (sweep, mediation)
    ]
    if np.sqrt(np.mean((totals[0] - totals[1]) ** 2)) > _APART * np.sqrt(np.mean(totals[0] ** 2)):
        raise _differ(f"total effects of {ablated}")


def _equal(first: xr.DataArray, second: xr.DataArray) -> bool:
    return first.shape == second.shape and bool((first.values == second.values).all())


def _in_words(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 30 else f"{text[:29]}…"


def _differ(meaning: str, *values: str) -> HydrascopeError:
    which = f" ({values[0]} and {values[1]})" if values else ""
    return HydrascopeError(
        f"the sweep and the mediation differ in their {meaning}{which}: measure both with the same options, or give "
        "one of them"
    )
