"""Shapley values: the importance of components that stand in for each other.

Ablated alone, a component with a backup seems worthless, and so does its backup. The Shapley value averages over all
sets of other ablated components, and shares out the whole effect exactly.
"""

from typing import Unpack

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from hydrascope.ablations.ablation import Ablation
from hydrascope.analyses.joint_ablation import joint_effects, require_affordable
from hydrascope.components.selection import Selection, select_components
from hydrascope.loading.any_model import takes_any_model
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.config import AnalysisOptions
from hydrascope.utils.errors import HydrascopeError


@takes_any_model
def shapley(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    components: Selection = "layers",
    orders: int = 64,
    seed: int = 0,
    **options: Unpack[AnalysisOptions],
) -> xr.Dataset:
    """Measure the Shapley value of each component: its mean effect over orders of ablation.

        >>> s = hs.analyses.shapley(model, prompts, hs.Mean(), components="attn.3,mlp.3,mlp.5", orders=2)
        >>> values = s["shapley"].isel(readout=0).mean("prompt")

    With v(S) = π̂^S − π̂ the total effect of ablating the components S together, all by the same patch, and n
    components,

        φ_c = Σ_{S without c} |S|! (n − |S| − 1)! / n! · (v(S ∪ c) − v(S)),

    the mean effect of ablating c over all n! orders of ablating the components one by one. It is the only way to share
    out v(all) that leaves no rest (Σ_c φ_c = v(all)), gives like components like shares, gives nothing to a component
    that never changes anything, and is additive in v (Shapley 1953). If components interact in pairs only, φ_c is the
    effect of c alone plus half of each of its interactions: half of what a backup restores is credited to the backup,
    and half to the component that it backs up. Ablating one at a time credits neither.

    The mean is taken over random orders (Castro et al. 2009), each together with its reverse (antithetic; Mitchell et
    al. 2022). Such a pair has c before d as often as after it, so interactions of pairs cause no error. Every order
    adds up to v(all), so the estimates do so exactly. A combination that occurs in several orders is measured once.

    Args:
        model: the model to measure.
        prompts: the prompts to measure.
        ablation: as for `sweep`; by default `Resample()`. Effects are computed per patch, then averaged.
        components: sublayers, heads or neurons, no component together with its sublayer. Others are never ablated.
        orders: the number of orders, even. Up to orders · (components − 1) + 1 overrides are measured for each prompt.
        seed: the seed of the orders. All prompts share them; a longer draw begins with the same orders.
        options: options of `sweep`: readouts, at, target, engine, batch_size, progress.

    Returns:
        a dataset in the readouts' units, negative where the component helps, as `total` is:

        - `shapley` [readout, prompt, component]: φ_c.
        - `standard_error` [readout, prompt, component]: the error of φ_c from the choice of orders, for this prompt and
          these patches; NaN for a single pair. Few orders may miss the sets in which a component matters, and then the
          error misses it too.
        - `mean_standard_error` [readout, component]: the same for the mean of φ_c over prompts. It can't be computed
          from `standard_error`, since all prompts share their orders. It leaves out how much other prompts would
          differ: see `hydrascope.measures.mean_interval`.
        - `everything` [readout, prompt]: v(all).

    Raises:
        HydrascopeError: as `sweep`; the number of orders is odd, or too large for so many components.
    """
    require_pairs(orders)
    if seed < 0:
        raise HydrascopeError(f"invalid seed {seed}: give 0 or more")
    chosen = select_components(model, components)
    require_affordable(orders * (len(chosen) - 1) + 1, f"give fewer orders than {orders}, or fewer components")
    drawn = antithetic(len(chosen), orders, seed)
    ablated, visited = visited_subsets(drawn)
    results = joint_effects(model, prompts, ablation, chosen, ablated, **options)
    effects = results["total"].mean("patch", dtype=np.float64).transpose("readout", "prompt", "ablated").values
    pairs = marginal_effects(effects, drawn, visited)
    variables = {
        "shapley": (("readout", "prompt", "component"), pairs.mean(2)),
        "standard_error": (("readout", "prompt", "component"), standard_error(pairs)),
        "mean_standard_error": (("readout", "component"), standard_error(pairs.mean(1))),
        "everything": (("readout", "prompt"), effects[..., visited[0, -1]]),
    }
    texts = {name: results[name] for name in ("readout", "text", "target_text")}
    names = np.array([str(component) for component in chosen], object)
    return xr.Dataset(
        variables, {"component": names, **texts}, {**results.attrs, "orders": orders, "orders_seed": seed}
    )


def require_pairs(orders: int) -> None:
    """Refuse a number of orders that can't each be taken with its reverse.

    Raises:
        HydrascopeError: the number is odd, or below 2.
    """
    if orders < 2 or orders % 2:
        raise HydrascopeError(f"{orders} orders can't be paired with their reverses: give an even number, at least 2")


def antithetic(components: int, orders: int, seed: int) -> Int[np.ndarray, "order component"]:
    """Return random orders of component numbers, every second the reverse of the one before."""
    generator = np.random.default_rng(seed)
    drawn = (generator.permutation(components) for _ in range(orders // 2))
    return np.array([order for forward in drawn for order in (forward, forward[::-1])])


def visited_subsets(
    orders: Int[np.ndarray, "order component"],
) -> tuple[Bool[np.ndarray, "override component"], Int[np.ndarray, "order step"]]:
    """Return the distinct combinations that some orders pass, and their index at each step.

    Args:
        orders: orders in which the components are ablated.
    """
    rank = orders.argsort(1)
    reached = rank[:, None, :] <= np.arange(orders.shape[1])[:, None]
    subsets, visited = np.unique(reached.reshape(-1, orders.shape[1]), axis=0, return_inverse=True)
    return subsets, visited.reshape(orders.shape)


def marginal_effects(
    effects: Float[np.ndarray, "*any override"],
    orders: Int[np.ndarray, "order component"],
    visited: Int[np.ndarray, "order step"],
) -> Float[np.ndarray, "*any pair component"]:
    """Return the effect of ablating each component, mean over each order and its reverse.

    Args:
        effects: the effects of the combinations from `visited_subsets`.
        orders: the orders, each followed by its reverse.
        visited: the index of the combination of each order at each step.
    """
    changes = np.diff(effects[..., visited], prepend=0.0)
    by_component = changes[..., np.arange(len(orders))[:, None], orders.argsort(1)]
    return np.asarray((by_component[..., ::2, :] + by_component[..., 1::2, :]) / 2)


def standard_error(pairs: Float[np.ndarray, "*any pair component"]) -> Float[np.ndarray, "*any component"]:
    """Return the standard error of the mean over pairs of orders; NaN for a single pair."""
    count = pairs.shape[-2]
    if count < 2:
        return np.full_like(pairs[..., 0, :], np.nan)
    return np.asarray(pairs.std(-2, ddof=1) / count**0.5)
