"""Results as one table with a row per readout, prompt and ablation."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr

from hydrascope.measures.effects_per_prompt import contribution, require_variables, select_readout
from hydrascope.measures.normalised import clean_and_corrupt, patching_of

_ROWS = ("readout", "prompt", "ablated")
_MEANS = ("direct", "total", "indirect", "scale")
_LABELS = {"ablated_kind": "kind", "ablated_block": "block", "ablated_unit": "unit"}


def tidy(results: xr.Dataset) -> pd.DataFrame:
    """Return one row per readout, prompt and ablation, averaged over patches, in float64.

    No column depends on how σ is read. Rows are in the order of the results, with ablations changing fastest.

    >>> table = hs.tidy(results)
    >>> mean = table.groupby("ablated")["lost"].mean()

    Args:
        results: of a run.

    Returns:
        these columns, effects in the readout's unit:

        - `readout`, `prompt` (its index), `text`, `target_text`;
        - `ablated`, its `kind` (`joint` if several components are overridden), `block` (the lowest with an ablated
          component) and `unit` (−1 for sublayers and joint ablations);
        - `unembed` of the ablated component in the clean pass, NaN if it wasn't read;
        - `direct`, `total`, `indirect`, `removed` = −`direct` and `lost` = −`total`;
        - `scale`, σ/σ^k of the final norm, without unit;
        - of an ablation `counterfactual`, the readout of the `clean` and of the `corrupt` run, and `normalised` =
          (patched − corrupt) / (clean − corrupt), NaN where the two don't differ;
        - `NAME_clean` and `NAME_ablated` of every metric. The metric `top` is a token id and has no mean: instead of
          `top_ablated` there is `top_kept`, the share of patches that keep the token.

    Raises:
        HydrascopeError: the dataset is no result of a run.
    """
    require_variables(results, ("unembed", *_MEANS, "text", "target_text"))
    if "readout" not in results.dims:
        results = results.expand_dims("readout")
    labels = [str(label) for label in results["readout"].values]
    means = {name: _mean(results[name]) for name in _MEANS}
    columns = {
        "unembed": xr.concat([contribution(select_readout(results, label)) for label in labels], "readout"),
        "direct": means["direct"],
        "total": means["total"],
        "indirect": means["indirect"],
        "removed": -means["direct"],
        "lost": -means["total"],
        "scale": means["scale"],
        **_normalised(results, means["total"]),
        **dict(_metrics(results)),
    }
    named = {
        "prompt": np.arange(results.sizes["prompt"]),
        **{name: _plain(results[name]) for name in ("readout", "text", "target_text", "ablated")},
        **{name: _plain(results[coord]) for coord, name in _LABELS.items()},
    }
    table = xr.Dataset({name: values.drop_vars(values.coords) for name, values in columns.items()}, coords=named)
    order = ["readout", "prompt", "text", "target_text", "ablated", *_LABELS.values(), *columns]
    return table.to_dataframe(dim_order=_ROWS).reset_index()[order]


def _mean(values: xr.DataArray) -> xr.DataArray:
    return values.mean("patch", dtype=np.float64, skipna=False)


def _normalised(results: xr.Dataset, total: xr.DataArray) -> dict[str, xr.DataArray]:
    """Return the columns of a result that patches with counterfactuals, none of another one."""
    if patching_of(results) is None:
        return {}
    clean, corrupt = (values.astype(np.float64) for values in clean_and_corrupt(results))
    width = clean - corrupt
    patched = results["logit"].astype(np.float64) + total
    return {"clean": clean, "corrupt": corrupt, "normalised": (patched - corrupt) / width.where(width != 0)}


def _plain(coord: xr.DataArray) -> tuple[str, np.ndarray]:
    """Return a coordinate's dimension and values; strings as pandas takes them."""
    values = coord.values
    return str(coord.dims[0]), values if values.dtype.kind in "iufb" else values.astype(object)


def _metrics(results: xr.Dataset) -> Iterator[tuple[str, xr.DataArray]]:
    """Yield the columns of every metric, [prompt] and [prompt, ablated]."""
    for i, name in enumerate(map(str, results["metric"].values) if "metric" in results.dims else ()):
        clean, ablated = results["metric_clean"].isel(metric=i), results["metric_ablated"].isel(metric=i)
        yield f"{name}_clean", clean.astype(np.float64)
        if name == "top":
            yield "top_kept", _mean(ablated == clean)
        else:
            yield f"{name}_ablated", _mean(ablated)
