"""Effects of ablated parts per prompt, each [prompt, ablated], and what makes them fit to be measured on."""

import numpy as np
import xarray as xr

from hydrascope.measures.effects_type import Effects, takes_effects
from hydrascope.measures.labels import separable
from hydrascope.utils.errors import HydrascopeError

_MEASURED = ("unembed", "unembed_ablated", "total", "direct", "indirect", "scale", "norm", "embed", "logit")


@takes_effects
def require_complete(effects: Effects) -> None:
    """Refuse effects in which a value is missing, rather than measure the rest as if it were all.

    Raises:
        HydrascopeError: some prompt has a value that is no finite number.
    """
    read = with_direct_effect(effects)["contribution"]
    for name, values in [*((name, effects[name]) for name in _MEASURED), ("unembed", read)]:
        finite = abs(values) < np.inf
        if not finite.all():
            bad = int((~finite.all([dim for dim in finite.dims if dim != "prompt"])).sum())
            raise HydrascopeError(
                f"{bad} of {effects.sizes['prompt']} prompts have values of {name!r} that are no numbers: "
                "finish the run with --resume, or choose the finished prompts"
            )


@takes_effects
def with_direct_effect(effects: Effects) -> Effects:
    """The effects of those ablated parts that were read, too, so that their direct effect is known."""
    read = effects["ablated_read"].values
    return effects if read.all() else effects.isel(ablated=read)


@takes_effects
def direct_effect(effects: Effects) -> xr.DataArray:
    """DE: what each ablated part adds to the readout in the intact network, in logits.

    `[prompt, ablated]`, the clean run's Δ_unembed (Eq. 10) of the part that is ablated, summed over the parts of
    a joint ablation: positive where it promotes the target. It is the paper's DE(a^l, u) of Eq. 34 and the
    horizontal axis of Figure 7. It doesn't depend on how σ is read.

    Raises:
        HydrascopeError: a part was ablated that wasn't read.
    """
    unread = effects["ablated"].values[~effects["ablated_read"].values]
    if len(unread):
        raise HydrascopeError(
            f"what {unread[0]} adds isn't known, since it was ablated and not read: measure again and read it, too"
        )
    return effects["contribution"].rename("direct_effect")


@takes_effects
def strength(effects: Effects) -> xr.DataArray:
    """How much each ablated part does, [prompt, ablated], in logits, to choose parts by.

    DE where the part was read, else what its ablation removes, −`direct`, which every run knows.
    """
    return effects["contribution"].where(effects["ablated_read"], -effects["direct"]).rename("strength")


@takes_effects
def own_change(effects: Effects) -> xr.DataArray:
    """By how much the ablated layers' own direct effect changes, in logits.

    `[prompt, ablated]`, u(ã)_i − u(a)_i (Eq. 28), averaged over patches: under zero ablation −DE. Of a head or a
    neuron it is the change of the layer that holds it. NaN where heads or neurons of several layers are ablated
    together: what the later layer answers can't be told from what is ablated of it.
    """
    moved = change(effects).where(effects["is_ablated"], 0).sum("component", skipna=False)
    return moved.where(separable(effects["ablated"])).rename("own_change")


@takes_effects
def change(effects: Effects) -> xr.DataArray:
    """ΔDE: by how much each layer's direct effect changes when something is ablated, in logits.

    `[prompt, ablated, component]`, averaged over patches (Eq. 34): positive where a component pushes the
    target more, or holds it down less, than in the intact network.
    """
    return (effects["unembed_ablated"] - effects["unembed"]).rename("change")
