"""Effects alone, where nothing else was kept: what an ablation removes, loses and has restored; not by whom."""

import numpy as np
import xarray as xr

from hydrascope.measures.bootstrap import Bootstrap, interval
from hydrascope.measures.reading import at_readout, require_dimensions
from hydrascope.measures.restoration import bounded, outcome


def effects_alone(results: xr.Dataset, readout: str | None = None) -> xr.Dataset:
    """The effects on one readout, averaged over patches, of any result, whatever else was kept; in float64.

        effects_alone(hs.open_results("pairs.zarr"))["total"]

    Args:
        results: of a run.
        readout: its label; by default the first.

    Returns:
        `total` and `direct` [prompt, ablated] and `logit` [prompt], as `hydrascope.measures.per_prompt` gives them, to
        which its other variables add what parts write; with the coordinates of `results`, and its attributes besides
        `readout` and `readout_before`.

    Raises:
        HydrascopeError: the dataset is no result of a run, lacks a dimension of one, or has no such readout.
    """
    chosen = at_readout(results, readout)
    require_dimensions(chosen, ("total", "direct", "logit"))
    means = {name: chosen[name].mean("patch", dtype=np.float64, skipna=False) for name in ("total", "direct")}
    effects = xr.Dataset({**means, "logit": chosen["logit"].astype(np.float64)}).transpose("prompt", "ablated")
    named = [name for name, coord in chosen.coords.items() if {*coord.dims} & {"prompt", "ablated", "component"}]
    reading = {"readout": str(chosen["readout"].values), "readout_before": int(chosen["readout_before"])}
    return effects.assign_coords(chosen.coords.to_dataset()[named].coords).assign_attrs({**results.attrs, **reading})


def outcome_bounds(effects: xr.Dataset, bootstrap: Bootstrap) -> xr.Dataset:
    """The means of `outcome` over prompts, and `share`, the ratio of what is restored to what is removed.

    Returns:
        each [bound, ablated]. `share` is NaN where nothing is removed, and without bounds where that may be nothing.
    """

    def statistic(means: xr.Dataset) -> xr.Dataset:
        return means.assign(share=means["restored"] / means["removed"].where(means["removed"] != 0))

    found = interval(statistic, outcome(effects), bootstrap)
    return found.assign(share=bounded(found["share"], found["removed"]))
