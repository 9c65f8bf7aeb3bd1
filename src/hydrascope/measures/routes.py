"""Routes of repair: how a mediator's reaction restores, by itself, by others, by the norm."""

import numpy as np
import xarray as xr

from hydrascope.components.component import Component
from hydrascope.measures.bootstrap import Bootstrap, simultaneous
from hydrascope.measures.effects_per_prompt import WRITTEN, per_prompt, select_readout
from hydrascope.measures.effects_type import Effects, Sigma
from hydrascope.measures.mediation import of_experiment
from hydrascope.utils.errors import HydrascopeError

#: The routes, which add up to `restored_by`.
ROUTES = ("itself", "others", "norm")


def routes(results: xr.Dataset, ablated: str, readout: str | None = None, sigma: Sigma | None = None) -> xr.Dataset:
    """Return by which routes each mediator's reaction restores the readout after an ablation.

    Two rows are compared, both with k ablated: in one of them the mediator d is frozen. Their difference is what the
    reaction of d changes, exactly; it adds up to `restored_by` of `measures.mediation`, up to rounding.

    >>> run = hs.sweep(model, prompts, hs.Zero(), ablate=hs.Mediation("attn.3", mediators="mlp.4,mlp.5"))
    >>> mean = hs.measures.routes(run, "attn.3")["norm"].mean("prompt")

    Args:
        results: of a run of `hydrascope.Mediation`.
        ablated: the label of the ablation k.
        readout: its label; by default the first.
        sigma: the reading of σ, as in `per_prompt`.

    Returns:
        means over patches for each mediator d downstream of k, each [prompt, mediator], in the readout's unit:

        - `itself`: the change of what d writes. An input of a head writes nothing itself: 0.
        - `others`: the change of what all other sublayers write, because d reacts.
        - `norm`: the change by the final norm's scale, because d reacts.
        - `restored_by`: π̂^k − π̂^{k, d frozen}, their sum.

    Raises:
        HydrascopeError: the results are of another experiment, lack the ablation or the readout, or kept effects only.
    """
    of_experiment(results, "mediation")
    labels = list(map(str, results["ablated"].values))
    mediators = [label for label in str(results.attrs["mediators"]).split(",") if f"{ablated}|{label}" in labels]
    if ablated not in labels or "|" in ablated:
        known = ", ".join(label for label in labels if "|" not in label)
        raise HydrascopeError(f"the mediation doesn't ablate {ablated}: choose among {known}")
    rows = [labels.index(label) for label in (ablated, *(f"{ablated}|{each}" for each in mediators))]
    chosen = results.isel(ablated=rows)
    effects = per_prompt(chosen, readout, sigma)
    free, frozen = effects.isel(ablated=0), effects.isel(ablated=slice(1, None))
    # The same sublayers in both rows: what doesn't respond to k is part of the norm's change at either σ.
    may_change = free["downstream"] | free["is_ablated"]
    gone = (free["unembed_ablated"] - frozen["unembed_ablated"]).where(may_change, 0)
    itself = _itself(chosen, effects, mediators)
    parts = {
        "itself": itself,
        "others": gone.sum("component", skipna=False).values - itself,
        "norm": _norm_change(free, frozen, may_change).transpose("prompt", "ablated").values,
        "restored_by": (free["total"] - frozen["total"]).transpose("prompt", "ablated").values,
    }
    units = {"units": effects.unit}
    return xr.Dataset(
        {name: (("prompt", "mediator"), values, units) for name, values in parts.items()},
        {"mediator": np.array(mediators, object), "ablated": ablated},
        {"readout": effects.readout, "sigma": effects.sigma},
    )


def route_bounds(
    results: xr.Dataset,
    ablated: str,
    readout: str | None = None,
    sigma: Sigma | None = None,
    bootstrap: Bootstrap | None = None,
) -> xr.Dataset:
    """Return the means of `routes` over prompts, with bounds for all mediators at once.

    >>> run = hs.sweep(model, prompts, hs.Zero(), ablate=hs.Mediation("attn.3", mediators="mlp.4,mlp.5"))
    >>> by_norm = hs.measures.route_bounds(run, "attn.3")["norm"].sel(mediator="mlp.5")

    Args:
        results: of a run of `hydrascope.Mediation`.
        ablated: the label of the ablation.
        readout: its label; by default the first.
        sigma: the reading of σ, as in `per_prompt`.
        bootstrap: how intervals are drawn.

    Returns:
        the variables of `routes`, each [bound, mediator], in the readout's unit.

    Raises:
        HydrascopeError: as `routes`.
    """
    found = routes(results, ablated, readout, sigma)
    return simultaneous(lambda means: means, found, bootstrap or Bootstrap(), "mediator")


def _norm_change(free: Effects, frozen: Effects, may_change: xr.DataArray) -> xr.DataArray:
    """Return the change of the readout by the scale of the final norm, [prompt, ablated].

    At the clean σ it is the difference of the rows' own `norm`. At each row's own σ the sum behind `norm` runs over
    other sublayers in either row, so it is taken over the same ones here.
    """
    if free.sigma == "clean":
        return free["norm"] - frozen["norm"]
    unchanged = free["embed"] + xr.dot(free["unembed"], (~may_change).astype(np.float64), dim="component")
    change: xr.DataArray = (free["scale"] - frozen["scale"]) * unchanged
    return change


def _itself(chosen: xr.Dataset, effects: Effects, mediators: list[str]) -> np.ndarray:
    """Return the change of what each mediator writes, [prompt, mediator].

    The first row has nothing frozen, row n + 1 the mediator n.
    """
    one = select_readout(chosen, effects.readout)
    after = one[WRITTEN[effects.sigma]].transpose("prompt", "ablated", "component")
    column = {str(label): number for number, label in enumerate(one["component"].values)}
    before_readout = effects.readout_before
    found = np.zeros((one.sizes["prompt"], len(mediators)))
    for number, label in enumerate(mediators):
        component = Component.parse(label)
        if component.is_input or 0 <= before_readout <= component.block:
            continue
        rows = after.isel(ablated=[0, number + 1], component=column[label]).values.astype(np.float64)
        found[:, number] = rows[:, 0] - rows[:, 1]
    return found
