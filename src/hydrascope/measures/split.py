"""The split of an ablation: responses to the missing prediction and the missing content.

An ablation changes what a component writes by δ. The readout part of δ is its projection on the readout's direction, so
it holds the whole direct effect at the clean σ; the content is the rest. Each is written alone (`hydrascope.Split`).
*Damping* is the share of the readout part's effect that the network undoes, *content repair* what it restores where the
content alone is missing, as a share of what the whole ablation removes.
"""

import numpy as np
import xarray as xr

from hydrascope.components.component import Override
from hydrascope.components.experiments import SPLIT
from hydrascope.components.part import BOOST, Part, cut_part
from hydrascope.measures.bootstrap import Bootstrap, Statistic, simultaneous
from hydrascope.measures.effects_per_prompt import select_readout
from hydrascope.measures.labels import single_ablations
from hydrascope.measures.mediation import of_experiment
from hydrascope.measures.regression import least_squares
from hydrascope.measures.restoration import ROUNDING, drop_unbounded, effects_only
from hydrascope.utils.errors import HydrascopeError


def select_part(results: xr.Dataset, part: Part) -> xr.Dataset:
    """Select the runs of a split in which one part of each change was written.

    They read like a sweep, whose ablations wrote that part: all measures take them.

        >>> run = hs.sweep(model, prompts, hs.Zero(), ablate=hs.Split("attn.3"))
        >>> content = hs.measures.select_part(run, hs.measures.Part("content", "logit"))
        >>> hs.measures.effects_only(content)["ablated"].values.tolist()
        ['attn.3']

    Args:
        results: of a run of `hydrascope.Split`.
        part: `Part("readout", label)`, `Part("content", label)` or `Part("dose", dose=-1)`.

    Raises:
        HydrascopeError: the results are of another experiment, or hold no such part.
    """
    of_experiment(results, "split")
    labels = [cut_part(str(label)) for label in results["ablated"].values]
    places = {label: place for place, (label, each) in enumerate(labels) if each == part}
    if not places:
        known = ", ".join(dict.fromkeys(str(each) for _, each in labels if each))
        raise HydrascopeError(f"the result holds no {part}: it holds {known}")
    # In the order of the whole ablations.
    chosen = [label for label, each in labels if each is None and label in places]
    overrides = [Override.parse(label) for label in chosen]
    alone = [override.ablated[0] if len(override.ablated) == 1 else None for override in overrides]
    kinds = ["joint" if component is None else component.kind for component in alone]
    named = results.isel(ablated=[places[label] for label in chosen]).assign_attrs(experiment="")
    return named.assign_coords(
        ablated=np.array(chosen, object),
        ablated_kind=("ablated", np.array(kinds, object)),
        ablated_unit=("ablated", np.array([-1 if component is None else component.unit for component in alone])),
    )


def split(results: xr.Dataset, readout: str | None = None, bootstrap: Bootstrap | None = None) -> xr.Dataset:
    """Return the responses to the readout part, the content and the opposite of each change.

    With r = total − direct, the response of the rest of the network:

        >>> run = hs.sweep(model, prompts, hs.Zero(), ablate=hs.Split("attn.3"))
        >>> damping = hs.measures.split(run)["damping"].sel(ablated="attn.3")

    Args:
        results: of a run of `hydrascope.Split`.
        readout: the label of the readout that is read and that splits; by default the first.
        bootstrap: how bounds are drawn.

    Returns:
        each [bound, ablated], without unit, with bounds that hold for all ablations at once (`simultaneous`):

        - `damping` g = 1 − Σ total·direct / Σ direct² over prompts, where the readout part alone is written;
        - `content_repair` h, the slope of r where the content alone is written on −direct of the whole ablation;
        - `content_share` = h/(h + g), with NaN as bounds where those of h + g contain 0;
        - `restored_slope`, `readout_slope` and `boost_slope`: the slopes of r on −direct over prompts where the whole
          change, the readout part and the opposite change are written;
        - `one_sided`, the energy of the even part of the response, ½(r(δ) + r(−δ)), over that of the even and the odd
          part: 0 where the opposite change is undone alike, 1 where both change the readout alike.

        NaN where nothing is removed or responds but for rounding, and `boost_slope` and `one_sided` if the dose −1
        wasn't measured.

    Raises:
        HydrascopeError: the results are of another experiment, or there is no such readout.
    """
    chosen = select_readout(results, readout)
    label = str(chosen["readout"].values)
    whole = _effects(single_ablations(of_experiment(results, "split")), label)
    readout_part, content = (_effects(select_part(results, Part(kind, label)), label) for kind in SPLIT)
    has_boost = any(cut_part(str(each))[1] == BOOST for each in results["ablated"].values)
    boost = _effects(select_part(results, BOOST), label) if has_boost else whole * np.nan
    lines = {
        "restored_slope": least_squares(-whole["direct"], _response(whole)),
        "readout_slope": least_squares(-readout_part["direct"], _response(readout_part)),
        "boost_slope": least_squares(-boost["direct"], _response(boost)),
        "content_repair": least_squares(-whole["direct"], _response(content)),
    }
    least = (ROUNDING * chosen["logit"].astype(np.float64)).reset_coords(drop=True) ** 2
    even, odd = (0.5 * (_response(whole) + sign * _response(boost)) for sign in (1, -1))
    products = {
        "both": readout_part["total"] * readout_part["direct"],
        "square": readout_part["direct"] ** 2,
        "even": even**2,
        "energy": even**2 + odd**2,
        "least": least.transpose("prompt"),
    }
    moments = [each.rename({m: f"{name} {m}" for m in each}) for name, (_, each) in lines.items()]
    bounds = simultaneous(
        _statistic({name: fit for name, (fit, _) in lines.items()}),
        xr.merge([xr.Dataset(products), *moments], compat="override", join="override"),
        bootstrap or Bootstrap(),
        "ablated",
    )
    return bounds.assign(content_share=drop_unbounded(bounds["content_share"], bounds["both_parts"])).drop_vars(
        "both_parts"
    )


def _statistic(fits: dict[str, Statistic]) -> Statistic:
    """Return `split` as a function of means over prompts."""

    def statistic(means: xr.Dataset) -> xr.Dataset:
        slopes = {}
        for name, fit in fits.items():
            own = {each: str(each).removeprefix(f"{name} ") for each in means if str(each).startswith(f"{name} ")}
            slopes[name] = fit(means[list(own)].rename(own))["slope"]
        damping = 1 - means["both"] / means["square"].where(means["square"] > means["least"])
        both = slopes["content_repair"] + damping
        return xr.Dataset(
            {
                **slopes,
                "damping": damping,
                "content_share": slopes["content_repair"] / both.where(both != 0),
                "both_parts": both,
                "one_sided": means["even"] / means["energy"].where(means["energy"] > means["least"]),
            }
        )

    return statistic


def _effects(results: xr.Dataset, readout: str) -> xr.Dataset:
    """Return `total` and `direct` [prompt, ablated] on one readout, means over patches."""
    data = effects_only(results, readout).data
    return data[["total", "direct"]].reset_coords(drop=True)


def _response(effects: xr.Dataset) -> xr.DataArray:
    return effects["total"] - effects["direct"]
