"""Effects per prompt, read from results: one readout, one reading of σ, patches averaged.

`per_prompt` reads the means over patches once; measures take the `Effects` that it returns. `by_patch` reads the
effects of single patches, where they were kept.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr

from hydrascope.measures.effects_type import Effects, EffectsOnly, Sigma
from hydrascope.measures.labels import ablated_labels, block_numbers, is_ablated, sublayer_labels
from hydrascope.storage.schema import MEASURED_VARIABLES, STATIC_VARIABLES
from hydrascope.utils.errors import HydrascopeError

#: The variable of direct effects in ablated rows, means over patches, at each reading of σ.
WRITTEN: dict[Sigma, str] = {"clean": "unembed_ablated", "own": "unembed_ablated_own"}

_BY_PATCH = "unembed_ablated_by_patch"

#: The variables [prompt, ablated, patch].
_PER_PATCH = ("total", "direct", "indirect", "scale")
#: The variables that only some results have: `own` where terms of a residual stream are overridden.
_OPTIONAL = ("own",)

#: The variables that measures need.
VARIABLES = ("unembed", *WRITTEN.values(), *_PER_PATCH, "logit", "embed", "downstream")

#: The coordinates that name components.
_COORDINATES = tuple(f"{dim}_{name}" for dim in ("ablated", "component") for name in ("kind", "block", "unit"))

#: Bytes of the results that are read at a time.
_BATCH_BYTES = 2**26


def per_prompt(results: xr.Dataset, readout: str | None = None, sigma: Sigma | None = None) -> Effects:
    """Return the effects on one readout, averaged over patches (Eq. 39), in float64.

    Results are read a few prompts at a time, so that they may be larger than memory. Only sublayers are kept among the
    components, since heads and neurons are parts of them.

    >>> effects = hs.measures.per_prompt(results, sigma="own")
    >>> mean = hs.measures.compensation(effects).mean("prompt")

    `norm` is the change of the readout that the final norm's scale s = `scale` causes. With σ clean it is
    (s − 1)(e + Σ_c u_c^k) over all sublayers c; with σ own it is (s − 1)(e + Σ_c u_c) over those that are neither
    ablated nor downstream. Either way, total = Σ (`unembed_ablated` − `unembed`) over ablated and downstream sublayers
    + norm. Where terms of a residual stream are overridden, their `own` change is added to the sum, and with σ clean
    (s − 1) `own` to norm. Components above a readout inside the network add nothing to it.

    Args:
        results: of a run.
        readout: its label; by default the run's first.
        sigma: `clean` (the default) reads ablated rows at the clean pass's σ, as the text after Eq. 13 says; `own` at
            their own, "the unembedding that is actually carried out" (§2.3).

    Returns:
        effects with the coordinates and attributes of `results`, and these `data`, in the readout's unit:

        - `unembed` [prompt, component] and `unembed_ablated` [prompt, ablated, component];
        - `total`, `direct`, `indirect` and `norm` [prompt, ablated];
        - `own` [prompt, ablated], where terms of residual streams are overridden;
        - `embed` and `logit` [prompt], and `logit_twin` [prompt] of an ablation `counterfactual`;
        - `contribution` [prompt, ablated]: the clean `unembed` of the ablated component, summed over components that
          are ablated together; NaN where one wasn't read, and `ablated_read` [ablated] is then False;
        - `scale` [prompt, ablated], without unit: 1 for a readout inside the network;
        - `is_ablated` [ablated, component]: whether the sublayer is ablated, in whole or in part;
        - `downstream` [ablated, component]: whether another sublayer can respond.

    Raises:
        HydrascopeError: the dataset is no result of a run, lacks a dimension or a sublayer of one, or has no such
            readout.
    """
    _require_result(results)
    _require_all_sublayers(results)
    chosen = select_readout(results, readout)
    sigma = _resolve_sigma(sigma)
    if chosen["readout_before"] >= 0:  # there is no norm inside the network
        chosen = chosen.assign(scale=xr.ones_like(chosen["scale"]))
    sublayers = sublayer_labels(chosen["component"])
    in_readout = _in_readout(chosen)
    ablated = is_ablated(chosen["ablated"], chosen["component"][sublayers])
    downstream = _downstream(chosen, in_readout)[:, sublayers]
    effects = [_effects(batch, sigma, sublayers, in_readout, ablated | downstream) for batch in _batches(chosen)]
    data = xr.concat(effects, "prompt", data_vars="all", coords="minimal", compat="override", join="override")
    data = data.assign(contribution=contribution(chosen), is_ablated=ablated, downstream=downstream & ~ablated)
    if "logit_twin" in chosen:
        data = data.assign(logit_twin=chosen["logit_twin"].drop_vars(chosen["logit_twin"].coords).astype(np.float64))
    kept = [name for name, coord in chosen.coords.items() if {*coord.dims} & {"prompt", "ablated", "component"}]
    named = chosen.coords.to_dataset()[kept].drop_vars(("readout", "readout_before")).isel(component=sublayers).load()
    data = data.assign_coords(named.coords).assign_coords(ablated_read=_ablated_read(chosen))
    name, before = str(chosen["readout"].values), int(chosen["readout_before"])
    data = data.assign_attrs({**results.attrs, "readout": name, "readout_before": before, "sigma": sigma})
    return Effects(readout=name, readout_before=before, data=data, sigma=sigma)


def by_patch(results: xr.Dataset, readout: str | None = None, sigma: Sigma | None = None) -> xr.DataArray | None:
    """Return the direct effect of each sublayer after each patch, at one reading of σ.

    This is `unembed_ablated` before the mean over patches. It is loaded into memory: select prompts first.

    >>> kept = hs.sweep(model, prompts, hs.Resample(patches=2), ablate="attn.3", keep="patches")
    >>> values = hs.measures.by_patch(kept)

    Args:
        results: of a run.
        readout: its label; by default the run's first.
        sigma: the reading of σ, as in `per_prompt`.

    Returns:
        `[prompt, ablated, patch, component]`, in the readout's unit, in float64; components are the sublayers. None if
        the run kept means only.

    Raises:
        HydrascopeError: there is no such readout or reading, or the results lack a dimension.
    """
    chosen, sigma = select_readout(results, readout), _resolve_sigma(sigma)
    if _BY_PATCH not in chosen:
        return None
    require_dimensions(chosen, (_BY_PATCH, "scale"))
    sublayers, in_readout = sublayer_labels(chosen["component"]), _in_readout(chosen)
    values = chosen[_BY_PATCH].isel(component=sublayers).astype(np.float64)
    if sigma == "own" and chosen["readout_before"] < 0:  # there is no norm inside the network
        values = values * chosen["scale"].astype(np.float64)
    counts = xr.DataArray(in_readout[sublayers], dims="component")
    return values.where(counts, 0).transpose("prompt", "ablated", "patch", "component").compute()


def readings(results: xr.Dataset, readout: str | None = None) -> tuple[Sigma, ...]:
    """Return the readings of σ that differ; for a readout inside the network just `clean`.

    >>> hs.measures.readings(results)
    ('clean', 'own')

    Args:
        results: of a run.
        readout: its label; by default the run's first.

    Returns:
        `clean`, or `clean` and `own`.

    Raises:
        HydrascopeError: there is no such readout.
    """
    return ("clean",) if select_readout(results, readout)["readout_before"] >= 0 else ("clean", "own")


def _resolve_sigma(sigma: Sigma | None) -> Sigma:
    """Return the reading of σ, by default `clean`."""
    if sigma not in (None, *WRITTEN):
        raise HydrascopeError(f"sigma is {sigma!r}: give 'clean' or 'own'")
    return sigma or "clean"


def select_readout(results: xr.Dataset, readout: str | None = None) -> xr.Dataset:
    """Select one readout of the results, without loading them.

    >>> one = hs.measures.select_readout(results, "logit")

    Args:
        results: of a run.
        readout: its label; by default the first.

    Returns:
        the results without the dimension `readout`.

    Raises:
        HydrascopeError: there is no such readout.
    """
    if "readout" not in results.coords:
        raise HydrascopeError(
            "this is no hydrascope result: it has no coordinate 'readout': give a result of sweep or open_results"
        )
    labels = [str(label) for label in np.atleast_1d(results["readout"].values)]
    if readout is not None and readout not in labels:
        raise HydrascopeError(f"there is no readout {readout!r}: choose among {', '.join(labels)}")
    if "readout" not in results.dims:
        return results
    return results.isel(readout=labels.index(readout) if readout else 0)


def _require_result(results: xr.Dataset) -> None:
    """Make sure that a dataset is a result with all means, and not empty.

    Raises:
        HydrascopeError: it is not.
    """
    if isinstance(results, EffectsOnly):
        raise HydrascopeError("these are effects already, not results: give them to measures as they are")
    if results.attrs.get("keep") == "effects":
        raise HydrascopeError("the result keeps effects only: measure again with keep='means'")
    require_variables(results, VARIABLES)


def require_variables(results: xr.Dataset, names: Sequence[str]) -> None:
    """Make sure that a dataset has some of a result's variables, with their dimensions.

    Raises:
        HydrascopeError: it lacks one.
    """
    missing = [name for name in (*names, *_COORDINATES, "readout_before") if name not in results]
    if missing:
        raise HydrascopeError(f"this is no hydrascope result: it has no variable {missing[0]!r}")
    require_dimensions(results, names)


def require_dimensions(results: xr.Dataset, names: Sequence[str]) -> None:
    """Make sure that variables have a result's dimensions, except `readout`, and are not empty.

    Raises:
        HydrascopeError: a dimension is missing, unknown or empty.
    """
    for name in names:
        expected, present = (
            {*(MEASURED_VARIABLES | STATIC_VARIABLES)[name].dims} - {"readout"},
            {*map(str, results[name].dims)} - {"readout"},
        )
        if missing := sorted(expected - present):
            raise HydrascopeError(
                f"{name!r} has no dimension {missing[0]!r}: select with a list, as isel({missing[0]}=[0]), and average "
                "after measuring"
            )
        if added := sorted(present - expected):
            raise HydrascopeError(
                f"{name!r} has an extra dimension {added[0]!r}: select with sel or isel, not with where"
            )
        if not results[name].size:
            raise HydrascopeError("the result holds no measurements: finish the run, or select at least one")


def _require_all_sublayers(results: xr.Dataset) -> None:
    """Make sure that all sublayers of the model are there, since sums run over them.

    Raises:
        HydrascopeError: one is missing.
    """
    present, total = len(sublayer_labels(results["component"])), 2 * int(results.attrs.get("depth", 0))
    if present < total:
        raise HydrascopeError(
            f"the results hold {present} of the model's {total} sublayers, and sums need all: "
            "measure first, then select sublayers"
        )


def _in_readout(chosen: xr.Dataset) -> np.ndarray:
    """Whether a component's output is part of the readout, `[component]`."""
    before = int(chosen["readout_before"])
    return np.array([before < 0 or block < before for block in block_numbers(chosen["component"])])


def contribution(chosen: xr.Dataset) -> xr.DataArray:
    """Return the clean `unembed` of each ablated component, `[prompt, ablated]`.

    It is summed over components that are ablated together, and NaN where one wasn't read.
    """
    unembed = chosen["unembed"].transpose("prompt", "component").values.astype(np.float64)
    unembed = np.where(_in_readout(chosen), unembed, 0)
    index = {str(label): i for i, label in enumerate(chosen["component"].values)}
    sums = np.full((len(unembed), chosen.sizes["ablated"]), np.nan)
    for i in np.flatnonzero(_ablated_read(chosen)):
        labels = ablated_labels(str(chosen["ablated"].values[i]))
        sums[:, i] = unembed[:, [index[label] for label in labels]].sum(1)
    return xr.DataArray(sums, dims=("prompt", "ablated"))


def _ablated_read(chosen: xr.Dataset) -> xr.DataArray:
    """Whether all ablated components were read, `[ablated]`."""
    read = {str(label) for label in chosen["component"].values}
    are_read = [read.issuperset(ablated_labels(str(label))) for label in chosen["ablated"].values]
    return xr.DataArray(are_read, dims="ablated")


def _downstream(chosen: xr.Dataset, in_readout: np.ndarray) -> xr.DataArray:
    """Return the components downstream and in the readout, `[ablated, component]`."""
    downstream = chosen["downstream"].transpose("ablated", "component").values.astype(bool)
    return xr.DataArray(downstream & in_readout, dims=("ablated", "component"))


def _batches(chosen: xr.Dataset) -> Iterator[xr.Dataset]:
    """Yield the results in memory, some prompts at a time, in whole chunks if they are stored."""
    big = [chosen[name] for name in WRITTEN.values()]
    prompts = chosen.sizes["prompt"]
    chunk = max(variable.encoding.get("preferred_chunks", {}).get("prompt", 1) for variable in big)
    size = sum(chosen[name].nbytes for name in (*WRITTEN.values(), *_PER_PATCH))
    step = max(_BATCH_BYTES * prompts // size // chunk, 1) * chunk
    names = [*WRITTEN.values(), *_PER_PATCH, "unembed", "embed", "logit"]
    names += [name for name in _OPTIONAL if name in chosen]
    for start in range(0, prompts, step):
        batch = chosen[names].isel(prompt=slice(start, start + step))
        # The stored unit doesn't hold for everything that is computed from a variable.
        yield batch.drop_vars(batch.coords).drop_attrs().compute()


def _effects(
    batch: xr.Dataset, sigma: Sigma, sublayers: list[int], in_readout: np.ndarray, may_change: xr.DataArray
) -> xr.Dataset:
    """Return the effects on some prompts.

    Args:
        batch: the results of these prompts, of one readout.
        sigma: the reading of σ.
        sublayers: the indices of sublayers among the components.
        in_readout: whether each component's output is part of the readout, `[component]`.
        may_change: whether a sublayer's direct effect can change, `[ablated, component]`.
    """
    means = xr.Dataset({name: batch[name].mean("patch", dtype=np.float64, skipna=False) for name in _PER_PATCH}).assign(
        {name: batch[name].astype(np.float64) for name in ("embed", "logit")}
    )
    # A component outside the readout adds nothing to it.
    counts = xr.DataArray(in_readout[sublayers], dims="component")
    written = {
        name: batch[name].isel(component=sublayers).astype(np.float64).where(counts, 0)
        for name in ("unembed", *WRITTEN.values())
    }
    clean, own = written["unembed_ablated"], written["unembed_ablated_own"]
    scale_change = means["scale"] - 1
    if sigma == "clean":
        norm = means["embed"] * scale_change + (own - clean).sum("component", skipna=False)
    else:
        unchanged = xr.dot(written["unembed"], (~may_change).astype(np.float64), dim="component")
        norm = scale_change * (means["embed"] + unchanged)
    if "own" in batch:
        rewritten, scale = (batch[name].astype(np.float64) for name in ("own", "scale"))
        if sigma == "clean":
            norm = norm + ((scale - 1) * rewritten).mean("patch", skipna=False)
        means = means.assign(own=(rewritten if sigma == "clean" else scale * rewritten).mean("patch", skipna=False))
    return means.assign(unembed=written["unembed"], unembed_ablated=written[WRITTEN[sigma]], norm=norm).transpose(
        "prompt", "ablated", "component"
    )
