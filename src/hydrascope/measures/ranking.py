"""One table of importances: the loss without each component, by several measures."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from hydrascope.measures.bootstrap import Bootstrap, interval
from hydrascope.measures.effects_type import Effects, takes_effects
from hydrascope.measures.estimator_scores import align_estimate
from hydrascope.utils.errors import HydrascopeError


@takes_effects
def rank(effects: Effects, *others: xr.Dataset, bootstrap: Bootstrap | None = None) -> xr.Dataset:
    """Return the importance of each component by several measures, and its rank.

    >>> shapley = hs.analyses.shapley(model, prompts, hs.Zero(), components="layers", orders=2)
    >>> atp = hs.analyses.attribution.atp(model, prompts, hs.Zero(), ablate="layers")
    >>> ranks = hs.measures.rank(effects, shapley, atp)["place"]

    Args:
        effects: of a sweep that ablates the components one by one.
        *others: results of `shapley` or `hydrascope.analyses.attribution`, with the same prompts, patches and
            components.
        bootstrap: how intervals are drawn.

    Returns:
        - `importance` [bound, measure, component], means over prompts, in the readout's unit. It is larger if the
          readout needs the component more. The measures are

          - `unembed`: the clean direct effect (Eq. 10); NaN if the component wasn't read;
          - `removed`: −`direct`, the loss if nothing responds;
          - `lost`: −`total`, the loss in the end;
          - `shapley`: minus the Shapley value φ;
          - the name of an attribution method: minus its estimate of `total`. The size of `gim` isn't comparable.

        - `place` [measure, component]: the rank, 1 for the most important component.
        - `seconds` [measure]: the time that an estimate took; NaN for other measures.

    Raises:
        HydrascopeError: a dataset has other prompts, patches, components or readouts, or is of another kind.
    """
    columns = {
        "unembed": effects["contribution"].values,
        "removed": -effects["direct"].values,
        "lost": -effects["total"].values,
    }
    seconds = dict.fromkeys(columns, np.nan)
    for name, values, duration in _importances(effects, others):
        if name in columns:
            raise HydrascopeError(f"{name} is given twice: leave one out")
        columns[name], seconds[name] = values, duration
    samples = xr.Dataset(
        {"importance": (("measure", "prompt", "component"), np.stack(list(columns.values())))},
        {"measure": list(columns), "component": np.array(list(map(str, effects["ablated"].values)), object)},
    )
    table = interval(lambda means: means, samples, bootstrap or Bootstrap()).transpose("bound", "measure", "component")
    estimate = table["importance"].sel(bound="estimate")
    order = (-estimate).values.argsort(-1, kind="stable")
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(1, order.shape[-1] + 1)[None], -1)
    attributes = {key: effects.data.attrs[key] for key in ("model", "readout", "units") if key in effects.data.attrs}
    return table.assign(
        place=(("measure", "component"), np.where(np.isnan(estimate), np.nan, place)),
        seconds=("measure", list(seconds.values()), {"units": "s"}),
    ).assign_attrs(attributes)


def _importances(effects: Effects, others: tuple[xr.Dataset, ...]) -> Iterator[tuple[str, np.ndarray, float]]:
    """Yield the name, the importance `[prompt, component]` and the seconds of each dataset."""
    for other in others:
        if "shapley" in other:
            renamed = other.rename(component="ablated", shapley="estimate")
            yield "shapley", -align_estimate(effects, "shapley", renamed), np.nan
        elif "estimate" in other and "method" in other.attrs:
            name = str(other.attrs["method"])
            yield name, -align_estimate(effects, name, other), float(other.attrs["seconds"])
        else:
            raise HydrascopeError("a dataset to rank is of neither shapley nor attribution: give results of these")
