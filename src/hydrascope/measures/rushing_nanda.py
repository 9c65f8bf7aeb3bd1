"""Self-repair as Rushing & Nanda (2024, arXiv 2402.15390) measure it, from our runs: to compare numbers with theirs."""

import numpy as np
import xarray as xr

from hydrascope.measures.effects import change
from hydrascope.measures.effects_per_prompt import per_prompt, select_readout
from hydrascope.measures.labels import kinds, of_kind
from hydrascope.utils.errors import HydrascopeError

#: What self-repair is made of.
PARTS = ("attention", "mlp", "norm")


def self_repair(results: xr.Dataset, readout: str | None = None) -> xr.Dataset:
    """How much more of the readout is left, once a head is ablated, than its own change takes away; and by what.

        >>> hs.sweep(model, prompts, hs.Resample(), ablate="heads", read="heads", at="all")    # doctest: +SKIP
        >>> measures.self_repair(_)["self_repair"].mean("prompt")                              # doctest: +SKIP

    They ablate heads at all positions by resampling, and freeze the final norm at the clean run: ask for the same, with
    the heads read, too. Our *restored* differs from theirs in that the norm of `direct` is the model's own.

    Returns:
        each [prompt, ablated], heads only, means over patches:

        - `self_repair` = `total` − (`unembed_ablated` − `unembed`) of the ablated head itself, at the clean run's σ, in
          the readout's unit: above 0 where it pushed up, and something makes up for it.
        - `attention`, `mlp`, `norm`: what other heads, MLPs and the final norm's scale bring of it; they add up to it.
        - `attention_share`, `mlp_share`, `norm_share`: each over `self_repair`, clipped to [0, 1] per prompt as they
          do; NaN where nothing is repaired.

    Raises:
        HydrascopeError: no head was ablated, or an ablated head wasn't read.
    """
    effects = of_kind(per_prompt(results, readout, "clean"), "ablated", "head")
    labels = list(map(str, effects["ablated"].values))
    read = set(map(str, results["component"].values))
    if not labels:
        raise HydrascopeError("self-repair of heads needs ablated heads, and this run ablated none: ablate heads")
    if missing := [label for label in labels if label not in read]:
        raise HydrascopeError(f"{missing[0]} was ablated and not read: measure again and read it, too")
    own = _own_change(select_readout(results, readout), labels)
    moved = change(effects)
    is_attention = xr.DataArray(np.array(kinds(effects["component"])) == "attn", dims="component")
    counted = moved.where(effects["downstream"] | effects["is_ablated"], 0)
    found = xr.Dataset(
        {
            "self_repair": effects["total"] - own,
            "attention": counted.where(is_attention, 0).sum("component", skipna=False) - own,
            "mlp": counted.where(~is_attention, 0).sum("component", skipna=False),
            "norm": effects["norm"],
        }
    )
    repaired = found["self_repair"].where(found["self_repair"] != 0)
    return found.assign({f"{part}_share": (found[part] / repaired).clip(0, 1) for part in PARTS})


def _own_change(chosen: xr.Dataset, labels: list[str]) -> xr.DataArray:
    """`[prompt, ablated]` what each ablated head itself writes more for the readout."""
    rows = [list(map(str, chosen["ablated"].values)).index(label) for label in labels]
    columns = [list(map(str, chosen["component"].values)).index(label) for label in labels]
    at = {name: xr.DataArray(places, dims="ablated") for name, places in (("row", rows), ("column", columns))}
    after = chosen["unembed_ablated"].reset_coords(drop=True).drop_vars(("ablated", "component")).rename(ablated="run")
    after = after.isel(run=at["row"], component=at["column"]).astype(np.float64)
    before = (
        chosen["unembed"].reset_coords(drop=True).drop_vars("component").isel(component=at["column"]).astype(np.float64)
    )
    return after - before
