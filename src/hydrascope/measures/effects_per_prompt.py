"""From results to effects per prompt: one readout chosen, σ read in one of two ways, the patches averaged.

Every measure starts here. `per_prompt` is the only function that reads the means over patches, and it reads them once:
measures take the `Effects` that it returns. `by_patch` reads what was kept of single patches.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr

from hydrascope.measures.effects_type import Effects, EffectsOnly, Sigma
from hydrascope.measures.labels import ablated_labels, block_numbers, is_ablated, sublayer_labels
from hydrascope.storage.schema import MEASURED_VARIABLES, STATIC_VARIABLES
from hydrascope.utils.errors import HydrascopeError

#: What parts write in ablated runs, means over patches, under each reading.
WRITTEN: dict[Sigma, str] = {"clean": "unembed_ablated", "own": "unembed_ablated_own"}

_BY_PATCH = "unembed_ablated_by_patch"

#: Per prompt, ablated part and patch.
_PER_PATCH = ("total", "direct", "indirect", "scale")

#: What a result must hold to be measured.
VARIABLES = ("unembed", *WRITTEN.values(), *_PER_PATCH, "logit", "embed", "downstream")

#: Of what is ablated and of what is read.
_PARTS = tuple(f"{dim}_{what}" for dim in ("ablated", "component") for what in ("kind", "block", "unit"))

#: Bytes of the results that are held at a time while they are read.
_BLOCK = 2**26


def per_prompt(results: xr.Dataset, readout: str | None = None, sigma: Sigma | None = None) -> Effects:
    """The effects on one readout, under one reading of σ, averaged over patches (Eq. 39); in memory, in float64.

    Effects are averaged, not patches. What is summed over components afterwards may be summed after the mean,
    sums and means commuting. Reads a block of prompts at a time, so that a result larger than memory can be
    measured. Of what was read only the layers are kept: heads and neurons are parts of them.

        effects = per_prompt(results, "difference", "own")
        compensation(effects)

    Args:
        results: of a run.
        readout: its label; by default the run's first.
        sigma: `clean` (the default) reads ablated runs at the clean run's σ, as the text after Eq. 13 says; `own`
            at their own, "the unembedding that is actually carried out" (§2.3).

    Returns:
        effects whose `data` are `unembed` [prompt, component], `unembed_ablated` [prompt, ablated, component],
        `total`, `direct`, `indirect` and `norm` [prompt, ablated], `embed` and `logit` [prompt], all in logits;
        `contribution`
        [prompt, ablated], the clean run's `unembed` of what is ablated, summed over the parts of a joint ablation,
        NaN where a part wasn't read; `scale` [prompt, ablated], without unit, 1 for a readout inside the network;
        `is_ablated` and `downstream` [ablated, component], which layers are ablated, in whole or in part, and which
        others can answer. With the coordinates of `results`, besides `ablated_read`, whether `contribution` is known,
        and its attributes, besides `readout`, `readout_before` and `sigma`. `component` are the layers.

        `norm` is what the change of the final norm's scale adds to the readout, s = `scale`, means over patches:
        with σ clean (s − 1)(e + Σ_c u_c^k) over all layers c; with σ own (s − 1)(e + Σ_c u_c) over those that
        are neither ablated nor downstream. Either way,
        total = Σ over ablated and downstream layers of (unembed_ablated − unembed) + norm. What lies above a readout
        inside the network adds nothing to it.

    Raises:
        HydrascopeError: the dataset is no result of a run, lacks a dimension or a layer of one, or has no such readout.
    """
    _refuse_strangers(results)
    _require_all_layers(results)
    chosen = select_readout(results, readout)
    sigma = _known(sigma)
    if chosen["readout_before"] >= 0:  # there is no norm inside the network
        chosen = chosen.assign(scale=xr.ones_like(chosen["scale"]))
    over = sublayer_labels(chosen["component"])
    belongs = _belongs(chosen)
    ablated = is_ablated(chosen["ablated"], chosen["component"][over])
    downstream = _reachable(chosen, belongs)[:, over]
    blocks = [_read(block, sigma, over, belongs, ablated | downstream) for block in _blocks(chosen)]
    data = xr.concat(blocks, "prompt", data_vars="all", coords="minimal", compat="override", join="override")
    data = data.assign(contribution=contribution(chosen), is_ablated=ablated, downstream=downstream & ~ablated)
    kept = [name for name, coord in chosen.coords.items() if {*coord.dims} & {"prompt", "ablated", "component"}]
    named = chosen.coords.to_dataset()[kept].drop_vars(("readout", "readout_before")).isel(component=over).load()
    data = data.assign_coords(named.coords).assign_coords(ablated_read=_parts_read(chosen))
    name, before = str(chosen["readout"].values), int(chosen["readout_before"])
    data = data.assign_attrs({**results.attrs, "readout": name, "readout_before": before, "sigma": sigma})
    return Effects(readout=name, readout_before=before, data=data, sigma=sigma)


def by_patch(results: xr.Dataset, readout: str | None = None, sigma: Sigma | None = None) -> xr.DataArray | None:
    """What each layer writes after each patch, under one reading of σ: `unembed_ablated` before the mean over patches.

    In memory: choose the prompts first.

    Args:
        results: of a run.
        readout, sigma: as in `per_prompt`.

    Returns:
        `[prompt, ablated, patch, component]`, in logits, in float64; `component` are the layers. None where the run
        kept means alone.

    Raises:
        HydrascopeError: there is no such readout, or no such reading; or the results lack a dimension.
    """
    chosen, sigma = select_readout(results, readout), _known(sigma)
    if _BY_PATCH not in chosen:
        return None
    require_dimensions(chosen, (_BY_PATCH, "scale"))
    over, belongs = sublayer_labels(chosen["component"]), _belongs(chosen)
    values = chosen[_BY_PATCH].isel(component=over).astype(np.float64)
    if sigma == "own" and chosen["readout_before"] < 0:  # there is no norm inside the network
        values = values * chosen["scale"].astype(np.float64)
    counts = xr.DataArray(belongs[over], dims="component")
    return values.where(counts, 0).transpose("prompt", "ablated", "patch", "component").compute()


def readings(results: xr.Dataset, readout: str | None = None) -> tuple[Sigma, ...]:
    """The readings of σ that differ: inside the network, where there is no norm, the first stands for both.

    Raises:
        HydrascopeError: there is no such readout.
    """
    return ("clean",) if select_readout(results, readout)["readout_before"] >= 0 else ("clean", "own")


def _known(sigma: Sigma | None) -> Sigma:
    """The reading of σ that is meant."""
    if sigma not in (None, *WRITTEN):
        raise HydrascopeError(f"σ is read as 'clean' or as 'own', not as {sigma!r}")
    return sigma or "clean"


def select_readout(results: xr.Dataset, readout: str | None = None) -> xr.Dataset:
    """The results of one readout, not loaded; by default of the first.

    Raises:
        HydrascopeError: there is no such readout.
    """
    if "readout" not in results.coords:
        raise HydrascopeError("this is no hydrascope result: it has no coordinate 'readout'")
    labels = [str(label) for label in np.atleast_1d(results["readout"].values)]
    if readout is not None and readout not in labels:
        raise HydrascopeError(f"there is no readout {readout!r}: this run read {', '.join(labels)}")
    if "readout" not in results.dims:
        return results
    return results.isel(readout=labels.index(readout) if readout else 0)


def _refuse_strangers(results: xr.Dataset) -> None:
    """Refuse what is no result, or an empty one.

    Raises:
        HydrascopeError: it is.
    """
    if isinstance(results, EffectsOnly):
        raise HydrascopeError("these are effects, which have been read already: give them to measures as they are")
    if results.attrs.get("keep") == "effects":
        raise HydrascopeError("the result keeps effects only: measure again and keep means, too")
    require_variables(results, VARIABLES)


def require_variables(results: xr.Dataset, names: Sequence[str]) -> None:
    """Refuse what lacks some of a result's variables, or dimensions of them.

    Raises:
        HydrascopeError: it does.
    """
    missing = [name for name in (*names, *_PARTS, "readout_before") if name not in results]
    if missing:
        raise HydrascopeError(f"this is no hydrascope result: it has no variable {missing[0]!r}")
    require_dimensions(results, names)


def require_dimensions(results: xr.Dataset, names: Sequence[str]) -> None:
    """Refuse results of which a single prompt, part or patch was taken, or none, or that were averaged or spread out.

    Raises:
        HydrascopeError: they are such; of readouts one may have been taken.
    """
    for name in names:
        dims, found = (
            {*(MEASURED_VARIABLES | STATIC_VARIABLES)[name].dims} - {"readout"},
            {*map(str, results[name].dims)} - {"readout"},
        )
        if missing := sorted(dims - found):
            raise HydrascopeError(
                f"{name!r} has no dimension {missing[0]!r}: choose by a list, as isel({missing[0]}=[0]), and average "
                "what measures return"
            )
        if added := sorted(found - dims):
            raise HydrascopeError(
                f"{name!r} has a dimension {added[0]!r} that results don't have: choose by sel or isel, not by where"
            )
        if not results[name].size:
            raise HydrascopeError("the result holds no measurements: finish the run, or choose some")


def _require_all_layers(results: xr.Dataset) -> None:
    """Refuse results from which layers were taken out: sums that run over all layers would pass for whole.

    Raises:
        HydrascopeError: they are such.
    """
    held, every = len(sublayer_labels(results["component"])), 2 * int(results.attrs.get("depth", 0))
    if held < every:
        raise HydrascopeError(
            f"{held} of the model's {every} layers are among the components, and sums need all: choose layers of what "
            "measures return"
        )


def _belongs(chosen: xr.Dataset) -> np.ndarray:
    """`[component]` whether what it writes reaches the place where the readout is read."""
    before = int(chosen["readout_before"])
    return np.array([before < 0 or block < before for block in block_numbers(chosen["component"])])


def contribution(chosen: xr.Dataset) -> xr.DataArray:
    """`[prompt, ablated]` the clean `unembed` of what each run ablates, of one readout; NaN where it wasn't read."""
    unembed = chosen["unembed"].transpose("prompt", "component").values.astype(np.float64)
    unembed = np.where(_belongs(chosen), unembed, 0)
    place = {str(label): i for i, label in enumerate(chosen["component"].values)}
    found = np.full((len(unembed), chosen.sizes["ablated"]), np.nan)
    for i in np.flatnonzero(_parts_read(chosen)):
        parts = ablated_labels(str(chosen["ablated"].values[i]))
        found[:, i] = unembed[:, [place[part] for part in parts]].sum(1)
    return xr.DataArray(found, dims=("prompt", "ablated"))


def _parts_read(chosen: xr.Dataset) -> xr.DataArray:
    """`[ablated]` whether all that a run ablates is among what was read."""
    read = {str(label) for label in chosen["component"].values}
    known = [read.issuperset(ablated_labels(str(label))) for label in chosen["ablated"].values]
    return xr.DataArray(known, dims="ablated")


def _reachable(chosen: xr.Dataset, belongs: np.ndarray) -> xr.DataArray:
    """`[ablated, component]` whether the component is downstream of what is ablated, and seen by the readout."""
    downstream = chosen["downstream"].transpose("ablated", "component").values.astype(bool)
    return xr.DataArray(downstream & belongs, dims=("ablated", "component"))


def _blocks(chosen: xr.Dataset) -> Iterator[xr.Dataset]:
    """The results in memory, some prompts at a time: whole chunks, where they are stored."""
    big = [chosen[name] for name in WRITTEN.values()]
    prompts = chosen.sizes["prompt"]
    chunk = max(variable.encoding.get("preferred_chunks", {}).get("prompt", 1) for variable in big)
    size = sum(chosen[name].nbytes for name in (*WRITTEN.values(), *_PER_PATCH))
    step = max(_BLOCK * prompts // size // chunk, 1) * chunk
    names = [*WRITTEN.values(), *_PER_PATCH, "unembed", "embed", "logit"]
    for start in range(0, prompts, step):
        block = chosen[names].isel(prompt=slice(start, start + step))
        # Without attributes: what is computed from logits isn't always in logits.
        yield block.drop_vars(block.coords).drop_attrs().compute()


def _read(block: xr.Dataset, sigma: Sigma, over: list[int], belongs: np.ndarray, moved: xr.DataArray) -> xr.Dataset:
    """The effects on a block of prompts; `moved` [ablated, component] are the layers whose change counts."""
    means = xr.Dataset({name: block[name].mean("patch", dtype=np.float64, skipna=False) for name in _PER_PATCH}).assign(
        {name: block[name].astype(np.float64) for name in ("embed", "logit")}
    )
    # What doesn't belong adds nothing, whatever is stored of it.
    counts = xr.DataArray(belongs[over], dims="component")
    of_layers = {
        name: block[name].isel(component=over).astype(np.float64).where(counts, 0)
        for name in ("unembed", *WRITTEN.values())
    }
    clean, own = of_layers["unembed_ablated"], of_layers["unembed_ablated_own"]
    more = means["scale"] - 1
    if sigma == "clean":
        norm = means["embed"] * more + (own - clean).sum("component", skipna=False)
    else:
        still = xr.dot(of_layers["unembed"], (~moved).astype(np.float64), dim="component")
        norm = more * (means["embed"] + still)
    return means.assign(unembed=of_layers["unembed"], unembed_ablated=of_layers[WRITTEN[sigma]], norm=norm).transpose(
        "prompt", "ablated", "component"
    )
