"""Do the same parts repair on every prompt? The paper's third question: how alike the profiles of responses are."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from hydrascope.measures.effects import change
from hydrascope.measures.effects_type import Effects, takes_effects
from hydrascope.utils.errors import HydrascopeError


@takes_effects
def profile_agreement(
    effects: Effects,
    ablated: str,
    groups: Sequence[str] | None = None,
    *,
    shuffles: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    """How alike prompts are in who responds to one ablation, against chance.

        >>> relations = [prompt.subject for prompt in prompts.prompts]                       # doctest: +SKIP
        >>> profile_agreement(effects, "attn.3", relations)["agreement"]                        # doctest: +SKIP

    A prompt's *profile* is what each layer downstream writes more, ΔDE, over the layers. Two prompts agree as their
    profiles correlate (Pearson).

    Args:
        effects: on one readout.
        ablated: the part whose ablation is responded to.
        groups: one name a prompt: its relation, or the set that it is of; by default all are of one.
        shuffles: how often chance is drawn.
        seed: of the draws.

    Returns:
        - `agreement` [pairs], without unit: the mean correlation over pairs of prompts, `within` groups, `between`
          them, and `within − between`. NaN where there is no such pair.
        - `chance` [pairs, bound]: `low` and `high`, which hold 95% of what chance gives, and its mean `estimate`. For
          `within` and `between` each prompt's profile is shuffled over the layers; for `within − between` prompts are
          shuffled over the groups.

    Raises:
        HydrascopeError: the part wasn't ablated, fewer than two layers or prompts are there, or there are not as many
            names as prompts.
    """
    if ablated not in effects["ablated"].values:
        raise HydrascopeError(f"{ablated} wasn't ablated: name a part that was")
    one = change(effects).sel(ablated=ablated)
    profiles = one.isel(component=effects["downstream"].sel(ablated=ablated).values).transpose("prompt", ...).values
    prompts, layers = profiles.shape
    named = np.zeros(prompts, int) if groups is None else np.unique(np.asarray(groups, str), return_inverse=True)[1]
    if layers < 2 or prompts < 2:
        raise HydrascopeError(f"{layers} layers respond to {ablated} on {prompts} prompts: agreement needs two of both")
    if len(named) != prompts:
        raise HydrascopeError(f"{len(named)} groups are named of {prompts} prompts: give a name for each")
    found = _agreement(_correlations(profiles), named)
    generator = np.random.default_rng(seed)
    shuffled = np.array(
        [_agreement(_correlations(generator.permuted(profiles, axis=1)), named) for _ in range(shuffles)]
    )
    correlations = _correlations(profiles)
    regrouped = np.array([_agreement(correlations, generator.permutation(named))[2] for _ in range(shuffles)])
    shuffled[:, 2] = regrouped
    bounds = np.stack([shuffled.mean(0), *np.quantile(shuffled, [0.025, 0.975], axis=0)])
    return xr.Dataset(
        {"agreement": ("pairs", found), "chance": (("pairs", "bound"), bounds.T)},
        {"pairs": ["within", "between", "within − between"], "bound": ["estimate", "low", "high"]},
    )


def _correlations(profiles: Float[np.ndarray, "prompt layer"]) -> Float[np.ndarray, "prompt prompt"]:
    """Pearson's, of every two prompts; NaN where a profile is constant."""
    centred = profiles - profiles.mean(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(unit @ unit.T)


def _agreement(correlations: Float[np.ndarray, "prompt prompt"], groups: np.ndarray) -> Float[np.ndarray, "3"]:
    """The mean correlation within groups, between them, and the difference."""
    pairs = np.triu(np.ones(correlations.shape, bool), 1)
    alike = groups[:, None] == groups[None]
    within, between = (_mean(correlations[pairs & chosen]) for chosen in (alike, ~alike))
    return np.array([within, between, within - between])


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else np.nan
