"""The numbers of docs/built-in-model.md as Markdown tables."""

from typing import Any

import xarray as xr

from training.measure import checkpoints, curves_of, from_data, of_kind
from training.recipe import VARIANTS
from training.ship import finished, markdown


def tables(data: dict[str, Any]) -> str:
    """Every number of the figures, as Markdown: estimates with their 95% intervals."""
    parts = ["# The built-in model in numbers", "Made by `python -m training page` from `measurements.json`."]
    for name in finished().values():
        for key in (key.removeprefix(f"{name}/") for key in data if key.startswith(f"{name}/")):
            entry = data[f"{name}/{key}"]
            parts.append(f"## `{name}`, {entry['prompts']:,} prompts of `{key}`")
            parts.append(_layer_table(from_data(entry["curves"])))
            parts.append(_erasure_line(entry["erasure"]))
    parts.append("## Variants and models on the same prose prompts")
    parts.append(_comparison(data))
    return "\n\n".join(parts) + "\n"


_COLUMNS = ("unembed", "total", "slope", "r2", "slope_norm", "r2_norm", "attention", "mlp", "norm", "lost")


def _layer_table(curves: xr.Dataset) -> str:
    rows = [
        [label, *(_interval(curves[name].sel(ablated=label)) for name in _COLUMNS)]
        for label in (str(a) for a in curves["ablated"].values)
    ]
    return markdown(("ablated", *_COLUMNS), rows)


def _interval(values: xr.DataArray) -> str:
    estimate, low, high = (float(values.sel(bound=bound)) for bound in ("estimate", "low", "high"))
    return "–" if low != low else f"{estimate:.2f} [{low:.2f}, {high:.2f}]"


def _erasure_line(found: dict[str, Any]) -> str:
    late = f"{found['component'][0]} to {found['component'][-1]}"
    erasing, attenuated = (found[name]["estimate"] for name in ("erasing", "attenuated"))
    if not erasing:
        return f"None of the late MLPs, {late}, has a negative mean effect."
    share = found["attenuation"]
    return (
        f"Late MLPs, {late}, when {found['ablated']} is ablated: {erasing:.0f} of them have a negative mean effect, "
        f"{attenuated:.0f} of these are attenuated, their erasure shrinking by "
        f"{share['estimate']:.2f} [{share['low']:.2f}, {share['high']:.2f}] of itself."
    )


def _comparison(data: dict[str, Any]) -> str:
    """A row per model: quality, and how many of its layers repair."""
    head = ("model", "recall", "loss", "attention slopes > 0", "MLP slopes > 0", "best attention sublayer", "best MLP")
    rows = []
    for name in (*(variant.name for variant in VARIANTS), *_finished(data)):
        if f"{name}/quality" not in data:
            continue
        quality, curves = data[f"{name}/quality"], curves_of(data, f"{name}/passages")
        row = [name, f"{quality['recall']:.0%}", f"{quality['loss']['nats_per_token']:.2f}"]
        row += [_above_zero(curves, kind) for kind in ("attn", "mlp")]
        row += [_best(curves, kind) for kind in ("attn", "mlp")]
        rows.append(row)
    return markdown(head, rows)


def _finished(data: dict[str, Any]) -> list[str]:
    """The last checkpoint of model and twin: the finished models."""
    found = [checkpoints(data, name) for name in finished().values()]
    return [keys[max(keys)] for keys in found if keys]


def _above_zero(curves: xr.Dataset, kind: str) -> str:
    low = of_kind(curves[["slope"]], kind)["slope"].sel(bound="low")
    return f"{int((low > 0).sum())} of {low.size}"


def _best(curves: xr.Dataset, kind: str) -> str:
    """The layer with the highest R² among those whose slope is above 0 with 95% confidence."""
    chosen = of_kind(curves[["slope", "r2"]], kind)
    chosen = chosen.isel(ablated=(chosen["slope"].sel(bound="low") > 0).values)
    if not chosen.sizes["ablated"]:
        return "none"
    label = str(chosen["ablated"].values[int(chosen["r2"].sel(bound="estimate").values.argmax())])
    layer = chosen.sel(ablated=label)
    return f"{label}: {_interval(layer['slope'])}, R² {_interval(layer['r2'])}"
