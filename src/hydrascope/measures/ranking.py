"""One table of importances: what the model's readout loses without a part, by every measure of that, side by side."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from hydrascope.measures.bootstrap import Bootstrap, interval
from hydrascope.measures.effects_type import Effects, takes_effects
from hydrascope.measures.estimator_scores import of_the_same
from hydrascope.utils.errors import HydrascopeError


@takes_effects
def rank(effects: Effects, *others: xr.Dataset, bootstrap: Bootstrap | None = None) -> xr.Dataset:
    """How important each part is by each measure, larger where the readout needs it more, and its place by it.

        >>> s = hs.analyses.shapley(model, prompts, hs.Mean(), parts="layers")               # doctest: +SKIP
        >>> a = hs.analyses.attribution.gim(model, prompts, hs.Mean(), ablate="layers")      # doctest: +SKIP
        >>> effects = hs.measures.per_prompt(hs.sweep(model, prompts, hs.Mean()))            # doctest: +SKIP
        >>> hs.measures.rank(effects, s, a)["place"].to_pandas().T                           # doctest: +SKIP

    Args:
        effects: of results of `sweep`, all parts ablated one by one.
        others: of `shapley` or `hydrascope.analyses.attribution`, with the same prompts, patches and parts.
        bootstrap: over prompts.

    Returns:
        - `importance` [bound, measure, component], means over prompts in the readout's unit, of

          - `unembed`: the clean run's direct effect (Eq. 10); NaN where the part wasn't read;
          - `removed`: −`direct`, what ablating it takes away where nothing answers;
          - `lost`: −`total`, what is missing in the end;
          - `shapley`: −φ, with whoever stands in for it gone in half of the orders;
          - a method's name: minus its estimate of `total`. That of `gim` has a size of its own: it ranks.

        - `place` [measure, component]: 1 for the most important part by each measure.
        - `seconds` [measure] that an estimate took; NaN for others.

    Raises:
        HydrascopeError: a dataset is of other prompts, patches, parts or readouts, or is none of these.
    """
    columns = {
        "unembed": effects["contribution"].values,
        "removed": -effects["direct"].values,
        "lost": -effects["total"].values,
    }
    seconds = dict.fromkeys(columns, np.nan)
    for name, values, took in _found(effects, others):
        if name in columns:
            raise HydrascopeError(f"{name} is given twice: leave one out")
        columns[name], seconds[name] = values, took
    samples = xr.Dataset(
        {"importance": (("measure", "prompt", "component"), np.stack(list(columns.values())))},
        {"measure": list(columns), "component": np.array(list(map(str, effects["ablated"].values)), object)},
    )
    found = interval(lambda means: means, samples, bootstrap or Bootstrap()).transpose("bound", "measure", "component")
    estimate = found["importance"].sel(bound="estimate")
    order = (-estimate).values.argsort(-1, kind="stable")
    place = np.empty_like(order)
    np.put_along_axis(place, order, np.arange(1, order.shape[-1] + 1)[None], -1)
    attributes = {key: effects.data.attrs[key] for key in ("model", "readout", "units") if key in effects.data.attrs}
    return found.assign(
        place=(("measure", "component"), np.where(np.isnan(estimate), np.nan, place)),
        seconds=("measure", list(seconds.values()), {"units": "s"}),
    ).assign_attrs(attributes)


def _found(effects: Effects, others: tuple[xr.Dataset, ...]) -> Iterator[tuple[str, np.ndarray, float]]:
    """Name, importance `[prompt, component]` and seconds of each of the others."""
    for other in others:
        if "shapley" in other:
            renamed = other.rename(component="ablated", shapley="estimate")
            yield "shapley", -of_the_same(effects, "shapley", renamed), np.nan
        elif "estimate" in other and "method" in other.attrs:
            name = str(other.attrs["method"])
            yield name, -of_the_same(effects, name, other), float(other.attrs["seconds"])
        else:
            raise HydrascopeError("what is to be ranked is neither of shapley nor of attribution: give their results")
