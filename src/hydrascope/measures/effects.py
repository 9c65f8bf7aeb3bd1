"""Effects of ablated components on each prompt, and checks that they can be measured on."""

import numpy as np
import xarray as xr

from hydrascope.measures.effects_per_prompt import per_prompt
from hydrascope.measures.effects_type import Effects, Sigma, takes_effects
from hydrascope.measures.labels import separable
from hydrascope.utils.errors import HydrascopeError

_MEASURED = ("unembed", "unembed_ablated", "total", "direct", "indirect", "scale", "norm", "embed", "logit")


@takes_effects
def require_complete(effects: Effects) -> None:
    """Make sure that no value is missing.

    >>> hs.measures.require_complete(effects)

    Args:
        effects: on one readout.

    Raises:
        HydrascopeError: a prompt has a value that is not finite.
    """
    read = with_direct_effect(effects)["contribution"]
    for name, values in [*((name, effects[name]) for name in _MEASURED), ("unembed", read)]:
        finite = abs(values) < np.inf
        if not finite.all():
            bad = int((~finite.all([dim for dim in finite.dims if dim != "prompt"])).sum())
            raise HydrascopeError(
                f"{bad} of {effects.sizes['prompt']} prompts have values of {name!r} that are not finite: "
                "finish the run with --resume, or choose the finished prompts"
            )


def complete_effects(name: str, results: xr.Dataset, readout: str | None = None, sigma: Sigma | None = None) -> Effects:
    """Return the effects of one of several results; errors name the result.

    >>> complete_effects("a.zarr", results).readout
    'logit'

    Args:
        name: the result's name.
        results: the result.
        readout: the readout's label; by default the first.
        sigma: the reading of σ, as in `per_prompt`.

    Raises:
        HydrascopeError: it is no result, lacks the readout, or is unfinished.
    """
    try:
        effects = per_prompt(results, readout, sigma)
        require_complete(effects)
    except HydrascopeError as error:
        raise HydrascopeError(f"{name}: {error}") from error
    return effects


@takes_effects
def with_direct_effect(effects: Effects) -> Effects:
    """Select the ablated components that were read, whose direct effect is therefore known.

    >>> read = hs.measures.with_direct_effect(effects)

    Args:
        effects: on one readout.

    Returns:
        the effects, with the other ablated components left out.
    """
    read = effects["ablated_read"].values
    return effects if read.all() else effects.isel(ablated=read)


@takes_effects
def direct_effect(effects: Effects) -> xr.DataArray:
    """Return DE: the contribution of each ablated component to the readout in the clean pass.

    This is Δ_unembed (Eq. 10), summed over components that are ablated together; DE(a^l, u) of Eq. 34 and the
    horizontal axis of Figure 7. It is positive where the component promotes the target, and doesn't depend on how σ is
    read.

    >>> mean = hs.measures.direct_effect(effects).mean("prompt")

    Args:
        effects: on one readout.

    Returns:
        `[prompt, ablated]`, in the readout's unit.

    Raises:
        HydrascopeError: an ablated component wasn't read.
    """
    unread = effects["ablated"].values[~effects["ablated_read"].values]
    if len(unread):
        raise HydrascopeError(
            f"the direct effect of {unread[0]} is unknown, since it was ablated and not read: measure again and read it"
        )
    return effects["contribution"].rename("direct_effect")


@takes_effects
def strength(effects: Effects) -> xr.DataArray:
    """Return the effect of each ablated component, to choose components by.

    >>> strongest = hs.measures.strongest(hs.measures.strength(effects))

    Args:
        effects: on one readout.

    Returns:
        `[prompt, ablated]`, in the readout's unit: DE where the component was read, else −`direct`.
    """
    return effects["contribution"].where(effects["ablated_read"], -effects["direct"]).rename("strength")


@takes_effects
def own_change(effects: Effects) -> xr.DataArray:
    """Return the change of the ablated sublayers' own direct effect.

    This is u(ã)_i − u(a)_i (Eq. 28), averaged over patches; under zero ablation −DE. For a head or a neuron it is the
    change of its sublayer. It is NaN where heads or neurons of several sublayers are ablated together, since the later
    sublayer also responds to the ablation in the earlier one.

    >>> mean = hs.measures.own_change(effects).mean("prompt")

    Args:
        effects: on one readout.

    Returns:
        `[prompt, ablated]`, in the readout's unit.
    """
    moved = change(effects).where(effects["is_ablated"], 0).sum("component", skipna=False)
    return moved.where(separable(effects["ablated"])).rename("own_change")


@takes_effects
def change(effects: Effects) -> xr.DataArray:
    """Return ΔDE: the change of each sublayer's direct effect after each ablation (Eq. 34).

    It is positive where a sublayer promotes the target more, or suppresses it less, than in the clean pass.

    >>> response = hs.measures.change(effects).sel(ablated="attn.3", component="mlp.4")

    Args:
        effects: on one readout.

    Returns:
        `[prompt, ablated, component]`, in the readout's unit, averaged over patches.
    """
    return (effects["unembed_ablated"] - effects["unembed"]).rename("change")
