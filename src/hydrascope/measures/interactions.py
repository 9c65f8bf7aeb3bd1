"""Interactions: the effect of ablating two components together, beyond the sum of both."""

import numpy as np
import xarray as xr

from hydrascope.components.component import Component
from hydrascope.measures.mediation import of_experiment


def interactions(results: xr.Dataset) -> xr.Dataset:
    """Return the difference between each pair's joint effect and the sum of the single effects.

    >>> pairs = hs.sweep(model, prompts, hs.Zero(), ablate=hs.Interactions("attn.3,mlp.4"))
    >>> mean = hs.measures.interactions(pairs)["interaction"].mean("prompt")

    Args:
        results: of a run of `hydrascope.Interactions`.

    Returns:
        means over patches, in the readouts' units:

        - `interaction` [readout, prompt, first, second] Δ_uv − Δ_u − Δ_v, Δ the total effect. It is below 0 where each
          covers for the other (*redundant*: both together cost more than one by one), above 0 where they need each
          other, and 0 where they are independent. It is symmetric, and NaN for a component with itself, or a sublayer
          with a unit of it.
        - `total` [readout, prompt, first] Δ_u. Ablating v after u changes the readout by `interaction` + Δ_v; v is a
          *backup* of u if this costs more than v alone.

    Raises:
        HydrascopeError: the results are of another experiment, or lack a dimension.
    """
    results = of_experiment(results, "interactions")
    labels = list(map(str, results["ablated"].values))
    singles = [label for label in labels if "+" not in label]
    index = {frozenset(label.split("+")): number for number, label in enumerate(labels)}
    total = results["total"].mean("patch", dtype=np.float64).transpose("readout", "prompt", "ablated").values
    alone = total[..., [index[frozenset([label])] for label in singles]]
    pairs = [
        (i, j, index[frozenset((u, v))])
        for i, u in enumerate(singles)
        for j, v in enumerate(singles)
        if frozenset((u, v)) in index and u != v
    ]
    first, second, row = (np.array(each, int) for each in zip(*pairs, strict=True)) if pairs else [np.zeros(0, int)] * 3
    interaction = np.full((*alone.shape, len(singles)), np.nan)
    interaction[..., first, second] = total[..., row] - alone[..., first] - alone[..., second]
    components = [Component.parse(label) for label in singles]
    names = np.array(singles, object)
    return xr.Dataset(
        {
            "interaction": (("readout", "prompt", "first", "second"), interaction),
            "total": (("readout", "prompt", "first"), alone),
        },
        {
            "first": names,
            "second": names,
            "first_block": ("first", [component.block for component in components]),
            **{name: results[name] for name in ("readout", "text", "target_text")},
        },
        results.attrs,
    )
