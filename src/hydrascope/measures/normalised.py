"""Measure how far a patched run is on the way from the corrupt to the clean run.

An ablation `counterfactual` puts the activation of a prompt's counterfactual into the prompt's run: with the prompts as
they are, corrupt activations into the clean run (noising); with `PromptSet.swapped`, clean activations into the corrupt
run (denoising). Either way the share is (patched − corrupt) / (clean − corrupt): 1 is a run as the clean one, 0 one as
the corrupt one.
"""

from typing import Literal

import xarray as xr

from hydrascope.measures.bootstrap import Bootstrap, interval
from hydrascope.measures.effects_type import EffectsOnly, takes_effects
from hydrascope.measures.restoration import drop_unbounded
from hydrascope.utils.errors import HydrascopeError

#: The way of patching: the corrupt activation into the clean prompt, or the other way round.
Patching = Literal["noising", "denoising"]


def patching_of(results: xr.Dataset) -> Patching | None:
    """Return the direction of patching with counterfactuals; None for another ablation.

    >>> hs.measures.patching_of(results) is None
    True

    Args:
        results: of a run, or the data of effects.
    """
    direction: Patching | None = results.attrs.get("patching") if "logit_twin" in results else None
    return direction


def clean_and_corrupt(results: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    """Return the readouts of the clean and of the corrupt run of each prompt, neither patched.

        >>> patched = hs.sweep(model, prompts, hs.Counterfactual())
        >>> clean, corrupt = hs.measures.clean_and_corrupt(patched)

    Args:
        results: of an ablation `counterfactual`, or the data of its effects.

    Returns:
        each with the dimensions of `logit`, in the readout's unit.

    Raises:
        HydrascopeError: the result is of another ablation, or older than this measure.
    """
    direction = patching_of(results)
    if direction is None:
        raise HydrascopeError(
            "only a result of the ablation counterfactual has a clean and a corrupt run: measure with "
            "hs.Counterfactual()"
        )
    own, twin = results["logit"], results["logit_twin"]
    return (twin, own) if direction == "denoising" else (own, twin)


@takes_effects
def normalised(effects: EffectsOnly, bootstrap: Bootstrap | None = None) -> xr.DataArray:
    """Return (patched − corrupt) / (clean − corrupt) of each ablation, as ratio of means.

        >>> patched = hs.sweep(model, prompts, hs.Counterfactual())
        >>> share = hs.measures.normalised(hs.measures.effects_only(patched)).sel(bound="estimate")

    Args:
        effects: on one readout, of an ablation `counterfactual`.
        bootstrap: how intervals are drawn.

    Returns:
        `[bound, ablated]`, without unit. It is NaN if clean and corrupt don't differ; its bounds are NaN if the
        interval of their difference contains 0.

    Raises:
        HydrascopeError: the effects are of another ablation.
    """
    clean, corrupt = clean_and_corrupt(effects.data)
    samples = xr.Dataset({"patched": effects["logit"] + effects["total"] - corrupt, "range": clean - corrupt})

    def ratio(means: xr.Dataset) -> xr.Dataset:
        return means.assign(share=means["patched"] / means["range"].where(means["range"] != 0))

    bounds = interval(ratio, samples, bootstrap or Bootstrap())
    return drop_unbounded(bounds["share"], bounds["range"])
