"""From results to effects per prompt: the patches averaged, the components told apart.

Every measure starts here. `average_patches` is the only function that reads the big variables, and it reads
them once: call it first where several measures are wanted, or hand any measure the results as they are.
"""

from typing import TypeVar

import numpy as np
import xarray as xr

from hydrascope.components import Component, Kind
from hydrascope.errors import HydrascopeError

Data = TypeVar("Data", xr.DataArray, xr.Dataset)

#: Per prompt, ablated component and patch, and so averaged over patches.
_PER_PATCH = ("unembed_ablated", "total", "direct", "indirect", "norm")

#: What a result must hold to be measured.
VARIABLES = ("unembed", "downstream", *_PER_PATCH)

#: Bytes of one variable that are held at a time while it is averaged.
_BLOCK = 2**26


def average_patches(results: xr.Dataset) -> xr.Dataset:
    """The results with every effect averaged over patches (Eq. 39), in memory and in float64.

    Effects are averaged, not patches. What is summed over components afterwards may be summed after the mean,
    sums and means commuting. Reads a block of prompts at a time, so that a result larger than memory can be
    measured. Results without a `patch` dimension are averaged already and come back unchanged.

    Returns:
        `unembed` [prompt, component], `unembed_ablated` [prompt, ablated, component], `total`, `direct`,
        `indirect`, `norm` [prompt, ablated], all in logits, `downstream` [ablated, component], with the
        coordinates and attributes of `results`. A value that is no number stays one.

    Raises:
        HydrascopeError: the dataset is no result of a run.
    """
    missing = [name for name in VARIABLES if name not in results]
    if missing:
        raise HydrascopeError(f"this is no hydrascope result: it has no variable {missing[0]!r}")
    if "patch" not in results.dims:
        return results
    if not all(results.sizes[dim] for dim in ("prompt", "ablated", "patch", "component")):
        raise HydrascopeError("the result holds no measurements: run `hydrascope run` to fill it")
    strangers = set(results["ablated"].values) - set(results["component"].values)
    if strangers:
        raise HydrascopeError(f"the result ablates {min(strangers)}, which is none of its components")
    effects = xr.Dataset(
        {name: _patch_mean(results[name]) for name in _PER_PATCH},
        coords={name: coord for name, coord in results.coords.items() if "patch" not in coord.dims},
        attrs=results.attrs,
    )
    effects["unembed"] = results["unembed"].transpose("prompt", "component").astype(np.float64)
    effects["downstream"] = results["downstream"].transpose("ablated", "component").astype(bool)
    return effects.load()


def _patch_mean(variable: xr.DataArray) -> xr.DataArray:
    """The mean over patches in float64, a block of prompts at a time; NaN where a patch is NaN."""
    per_prompt = variable.nbytes // variable.sizes["prompt"]
    chunk = variable.encoding.get("preferred_chunks", {}).get("prompt", 1)
    step = max(_BLOCK // max(per_prompt, 1) // chunk, 1) * chunk
    blocks = [
        variable.isel(prompt=slice(start, start + step)).mean("patch", dtype=np.float64, skipna=False)
        for start in range(0, variable.sizes["prompt"], step)
    ]
    return xr.concat(blocks, "prompt").transpose("prompt", "ablated", ...)


def require_complete(effects: xr.Dataset) -> None:
    """Refuse effects in which a value is missing, rather than measure the rest as if it were all.

    Raises:
        HydrascopeError: some prompt has a value that is no finite number.
    """
    for name in ("unembed", *_PER_PATCH):
        finite = abs(effects[name]) < np.inf
        if not finite.all():
            bad = int((~finite.all([dim for dim in finite.dims if dim != "prompt"])).sum())
            raise HydrascopeError(
                f"{bad} of {effects.sizes['prompt']} prompts have values of {name!r} that are no numbers: "
                "finish the run with --resume, or choose the finished prompts"
            )


def layers(labels: xr.DataArray) -> list[int]:
    """The layer of each component label, counted from 0."""
    return [Component.parse(str(label)).layer for label in labels.values]


def kinds(labels: xr.DataArray) -> list[Kind]:
    """The kind, `attn` or `mlp`, of each component label."""
    return [Component.parse(str(label)).kind for label in labels.values]


def of_kind(data: Data, dim: str, kind: Kind) -> Data:
    """The part of `data` whose `dim`, `ablated` or `component`, is of one kind, in order of depth."""
    chosen = [i for i, each in enumerate(kinds(data[dim])) if each == kind]
    depth = layers(data[dim])
    return data.isel({dim: sorted(chosen, key=depth.__getitem__)})


def direct_effect(results: xr.Dataset) -> xr.DataArray:
    """DE: what each ablated component adds to the target's logit in the intact network, in logits.

    `[prompt, ablated]`, the clean run's Δ_unembed (Eq. 10) of the component that is ablated: positive where
    it promotes the target. It is the paper's DE(a^l, u) of Eq. 34 and the horizontal axis of Figure 7.
    """
    own = results["unembed"].sel(component=results["ablated"]).drop_vars("component")
    return own.transpose("prompt", "ablated").astype(np.float64).rename("direct_effect")


def removed_effect(results: xr.Dataset) -> xr.DataArray:
    """What an ablation takes away: the direct effect less what the patch adds in its place, in logits.

    `[prompt, ablated]`, u(a)_i − u(ã)_i (Eq. 28 with its sign turned), averaged over patches; the direct
    effect itself under zero ablation.
    """
    effects = average_patches(results)
    own = effects["unembed_ablated"].sel(component=effects["ablated"]).drop_vars("component")
    return (direct_effect(effects) - own).transpose("prompt", "ablated").rename("removed_effect")


def change(results: xr.Dataset) -> xr.DataArray:
    """ΔDE: by how much each component's direct effect changes when another is ablated, in logits.

    `[prompt, ablated, component]`, averaged over patches (Eq. 34): positive where a component pushes the
    target more, or holds it down less, than in the intact network.
    """
    effects = average_patches(results)
    return (effects["unembed_ablated"] - effects["unembed"]).rename("change")
