"""Self-repair as Rushing & Nanda (2024, arXiv 2402.15390) define it, for comparison."""

import numpy as np
import xarray as xr

from hydrascope.measures.effects import change
from hydrascope.measures.effects_per_prompt import per_prompt, select_readout
from hydrascope.measures.labels import kinds, of_kind
from hydrascope.utils.errors import HydrascopeError

#: The parts of self-repair.
PARTS = ("attention", "mlp", "norm")


def self_repair(results: xr.Dataset, readout: str | None = None) -> xr.Dataset:
    """Return the change of the readout beyond an ablated head's own change, and its sources.

    Rushing & Nanda ablate heads at all positions by resampling, and freeze the final norm in the clean pass. Run the
    same, and read the heads, too. Our *restored* differs from theirs: `direct` uses the model's own norm.

    >>> run = hs.sweep(model, prompts, hs.Resample(2), ablate="heads.4", read="heads", at="all")
    >>> mean = hs.measures.self_repair(run)["self_repair"].mean("prompt")

    Args:
        results: of a run that ablates heads and reads them.
        readout: its label; by default the first.

    Returns:
        each [prompt, ablated], heads only, means over patches:

        - `self_repair` = `total` − (`unembed_ablated` − `unembed`) of the ablated head, at the clean pass's σ, in the
          readout's unit. It is above 0 if the head promoted the target and others make up for it.
        - `attention`, `mlp`, `norm`: the parts due to other heads, MLPs and the final norm's scale, which add up to it.
        - `attention_share`, `mlp_share`, `norm_share`: each part over `self_repair`, clipped to [0, 1] per prompt as in
          their paper; NaN if `self_repair` is 0.

    Raises:
        HydrascopeError: no head was ablated, or an ablated head wasn't read.
    """
    effects = of_kind(per_prompt(results, readout, "clean"), "ablated", "head")
    labels = list(map(str, effects["ablated"].values))
    read = set(map(str, results["component"].values))
    if not labels:
        raise HydrascopeError("this run ablated no heads: ablate heads to measure self-repair")
    if missing := [label for label in labels if label not in read]:
        raise HydrascopeError(f"{missing[0]} was ablated and not read: measure again and read it")
    own = _own_change(select_readout(results, readout), labels)
    changes = change(effects)
    is_attention = xr.DataArray(np.array(kinds(effects["component"])) == "attn", dims="component")
    counted = changes.where(effects["downstream"] | effects["is_ablated"], 0)
    parts = xr.Dataset(
        {
            "self_repair": effects["total"] - own,
            "attention": counted.where(is_attention, 0).sum("component", skipna=False) - own,
            "mlp": counted.where(~is_attention, 0).sum("component", skipna=False),
            "norm": effects["norm"],
        }
    )
    repaired = parts["self_repair"].where(parts["self_repair"] != 0)
    return parts.assign({f"{part}_share": (parts[part] / repaired).clip(0, 1) for part in PARTS})


def _own_change(chosen: xr.Dataset, labels: list[str]) -> xr.DataArray:
    """Return the change of each ablated head's own direct effect, `[prompt, ablated]`."""
    rows = [list(map(str, chosen["ablated"].values)).index(label) for label in labels]
    columns = [list(map(str, chosen["component"].values)).index(label) for label in labels]
    at = {name: xr.DataArray(indices, dims="ablated") for name, indices in (("row", rows), ("column", columns))}
    after = chosen["unembed_ablated"].reset_coords(drop=True).drop_vars(("ablated", "component")).rename(ablated="row")
    after = after.isel(row=at["row"], component=at["column"]).astype(np.float64)
    before = (
        chosen["unembed"].reset_coords(drop=True).drop_vars("component").isel(component=at["column"]).astype(np.float64)
    )
    return after - before
