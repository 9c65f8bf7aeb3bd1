"""Who covers for whom: what ablating two parts together does, beyond what ablating each does."""

import numpy as np
import xarray as xr

from hydrascope.components.component import Component
from hydrascope.measures.mediation import of_experiment


def interactions(results: xr.Dataset) -> xr.Dataset:
    """How the effects of two ablations differ from their sum, of all pairs.

        >>> found = measures.interactions(hs.open_results("pairs.zarr"))         # doctest: +SKIP
        >>> found["interaction"].mean("prompt")                                  # doctest: +SKIP

    Args:
        results: of a run of `hydrascope.Interactions`.

    Returns:
        means over patches, in the readouts' units:

        - `interaction` [readout, prompt, first, second] Δ_uv − Δ_u − Δ_v, Δ the total effect: below 0 where each covers
          for the other (*redundant*: both together cost more than one by one), above 0 where they need each other, 0
          where they don't meet. Symmetric; NaN of a part with itself, or a layer with a part of it.
        - `total` [readout, prompt, first] Δ_u. So Δ of v after u is `interaction` + Δ_v: v is a *backup* of u where it
          costs more once u is ablated.

    Raises:
        HydrascopeError: the results are of another experiment, or lack a dimension.
    """
    results = of_experiment(results, "interactions")
    labels = list(map(str, results["ablated"].values))
    parts = [label for label in labels if "+" not in label]
    place = {frozenset(label.split("+")): number for number, label in enumerate(labels)}
    total = results["total"].mean("patch", dtype=np.float64).transpose("readout", "prompt", "ablated").values
    alone = total[..., [place[frozenset([part])] for part in parts]]
    pairs = [
        (i, j, place[frozenset((u, v))])
        for i, u in enumerate(parts)
        for j, v in enumerate(parts)
        if frozenset((u, v)) in place and u != v
    ]
    first, second, row = (np.array(each, int) for each in zip(*pairs, strict=True)) if pairs else [np.zeros(0, int)] * 3
    interaction = np.full((*alone.shape, len(parts)), np.nan)
    interaction[..., first, second] = total[..., row] - alone[..., first] - alone[..., second]
    found = [Component.parse(part) for part in parts]
    names = np.array(parts, object)
    return xr.Dataset(
        {
            "interaction": (("readout", "prompt", "first", "second"), interaction),
            "total": (("readout", "prompt", "first"), alone),
        },
        {
            "first": names,
            "second": names,
            "first_block": ("first", [component.block for component in found]),
            **{name: results[name] for name in ("readout", "text", "target_text")},
        },
        results.attrs,
    )
