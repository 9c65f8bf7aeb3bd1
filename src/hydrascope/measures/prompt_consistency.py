"""Agreement of prompts on the responding components (the paper's third question)."""

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
    """Measure how far the responses to an ablation agree between prompts, against chance.

    The *profile* of a prompt is ΔDE of each downstream sublayer. The agreement of two prompts is the correlation of
    their profiles (Pearson).

    >>> subjects = [prompt.subject for prompt in prompts.prompts]
    >>> agreement = hs.measures.profile_agreement(effects, "attn.3", subjects, shuffles=100)["agreement"]

    Args:
        effects: on one readout.
        ablated: the label of the ablation.
        groups: a name for each prompt, such as its relation or its set; by default all are in one group.
        shuffles: the number of shuffles.
        seed: the seed of the shuffles.

    Returns:
        - `agreement` [pairs], without unit: the mean correlation over pairs of prompts `within` groups, `between`
          groups, and `within − between`; NaN if there is no such pair.
        - `chance` [pairs, bound]: `low` and `high`, between which 95% of the shuffles lie, and their mean `estimate`.
          For `within` and `between` each prompt's profile is shuffled over the sublayers; for `within − between`
          prompts are shuffled over the groups.

    Raises:
        HydrascopeError: the component wasn't ablated, there are fewer than two sublayers or prompts, or the number of
            names isn't that of prompts.
    """
    if ablated not in effects["ablated"].values:
        raise HydrascopeError(f"{ablated} wasn't ablated in this run: name a component that was")
    responses = change(effects).sel(ablated=ablated)
    profiles = (
        responses.isel(component=effects["downstream"].sel(ablated=ablated).values).transpose("prompt", ...).values
    )
    prompts, sublayers = profiles.shape
    group_ids = np.zeros(prompts, int) if groups is None else np.unique(np.asarray(groups, str), return_inverse=True)[1]
    if sublayers < 2 or prompts < 2:
        raise HydrascopeError(
            f"{ablated} has {sublayers} downstream sublayers on {prompts} prompts: agreement needs two of both"
        )
    if len(group_ids) != prompts:
        raise HydrascopeError(f"{len(group_ids)} group names were given for {prompts} prompts: give one for each")
    agreement = _agreement(_correlations(profiles), group_ids)
    generator = np.random.default_rng(seed)
    shuffled = np.array(
        [_agreement(_correlations(generator.permuted(profiles, axis=1)), group_ids) for _ in range(shuffles)]
    )
    correlations = _correlations(profiles)
    regrouped = np.array([_agreement(correlations, generator.permutation(group_ids))[2] for _ in range(shuffles)])
    shuffled[:, 2] = regrouped
    bounds = np.stack([shuffled.mean(0), *np.quantile(shuffled, [0.025, 0.975], axis=0)])
    return xr.Dataset(
        {"agreement": ("pairs", agreement), "chance": (("pairs", "bound"), bounds.T)},
        {"pairs": ["within", "between", "within − between"], "bound": ["estimate", "low", "high"]},
    )


def _correlations(profiles: Float[np.ndarray, "prompt sublayer"]) -> Float[np.ndarray, "prompt prompt"]:
    """Return Pearson's correlation of every two prompts; NaN if a profile is constant."""
    centred = profiles - profiles.mean(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(unit @ unit.T)


def _agreement(correlations: Float[np.ndarray, "prompt prompt"], groups: np.ndarray) -> Float[np.ndarray, "3"]:
    """Return the mean correlation within groups, between groups, and the difference."""
    pairs = np.triu(np.ones(correlations.shape, bool), 1)
    same_group = groups[:, None] == groups[None]
    within, between = (_mean(correlations[pairs & chosen]) for chosen in (same_group, ~same_group))
    return np.array([within, between, within - between])


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else np.nan
