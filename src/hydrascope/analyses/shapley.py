"""Fair importance: what a part is worth when others stand in for it.

Ablated alone, a part that is backed up looks worthless, and so does its backup: each is covered by the other. Shapley's
value asks what a part is worth in every company, and shares out the whole effect without a rest.
"""

from typing import Unpack

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from hydrascope.ablations.ablation import Ablation
from hydrascope.analyses.joint_ablation import joint_effects, require_affordable
from hydrascope.components.selection import Selection, select_components
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.config import AnalysisOptions
from hydrascope.utils.errors import HydrascopeError


def shapley(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    parts: Selection = "layers",
    orders: int = 64,
    seed: int = 0,
    **options: Unpack[AnalysisOptions],
) -> xr.Dataset:
    """The Shapley value of each part: what ablating it changes, averaged over the orders of ablating all of them.

        >>> s = hs.analyses.shapley(model, prompts, hs.Mean(), parts="layers")                      # doctest: +SKIP
        >>> s["shapley"].isel(readout=0).mean("prompt").to_series().sort_values()          # doctest: +SKIP

    With v(S) = π̂^S − π̂ the total effect of ablating the parts S together, all by the same patch, and n parts,

        φ_c = Σ_{S without c} |S|! (n − |S| − 1)! / n! · (v(S ∪ c) − v(S)),

    the mean over all n! orders of ablating the parts one by one of what ablating c then changes. It is the only way to
    share out v(all) that leaves no rest (Σ_c φ_c = v(all)), gives alike parts alike shares, gives nothing to a part
    that never changes anything, and is additive in v (Shapley 1953). Where parts interact by twos only, it is the
    part's own effect and half of each interaction: of what a backup restores, half is credited to the backup, half to
    what it backs up, where ablating one at a time credits neither.

    The mean is taken over orders drawn at random (Castro et al. 2009), each together with its reverse (antithetic;
    Mitchell et al. 2022): a pair holds c before d as often as after it, so interactions by twos leave no error at all.
    Every order adds up to v(all), so the estimates do, exactly. A combination that several orders pass is run once.

    Args:
        ablation: as for `sweep`; by default `Resample()`. Effects are taken per patch and averaged after.
        parts: layers, heads or neurons, no part together with its whole. The others are left as they are.
        orders: how many, an even number. Up to orders · (parts − 1) + 1 runs are made of each prompt.
        seed: of the orders. They are the same for all prompts, and the first ones of a longer draw.
        options: of `sweep`: readouts, at, target, engine, batch_size, progress.

    Returns:
        in the readouts' units, negative where the part helps, as `total` is:

        - `shapley` [readout, prompt, component] φ_c.
        - `standard_error` (likewise) of φ_c, over the pairs of orders: how far it may be from the mean over all orders,
          of this prompt with these patches. NaN of a single pair. Few orders may miss the company in which a part
          matters, and its error with it.
        - `mean_standard_error` [readout, component] the same of the mean of φ_c over prompts. Not to be had from
          `standard_error`: all prompts share their orders, and with them much of the error. What other prompts would
          give is not in it: see `hydrascope.measures.mean_interval`.
        - `everything` [readout, prompt] v(all).

    Raises:
        HydrascopeError: as `sweep`; or the orders are no pairs, or too many with so many parts.
    """
    require_pairs(orders)
    if seed < 0:
        raise HydrascopeError(f"{seed} is no seed of orders: give a number from 0")
    chosen = select_components(model, parts)
    require_affordable(orders * (len(chosen) - 1) + 1, f"take fewer orders than {orders}, or fewer parts")
    drawn = antithetic(len(chosen), orders, seed)
    ablated, place = visited_subsets(drawn)
    results = joint_effects(model, prompts, ablation, chosen, ablated, **options)
    effects = results["total"].mean("patch", dtype=np.float64).transpose("readout", "prompt", "ablated").values
    pairs = marginal_effects(effects, drawn, place)
    found = {
        "shapley": (("readout", "prompt", "component"), pairs.mean(2)),
        "standard_error": (("readout", "prompt", "component"), standard_error(pairs)),
        "mean_standard_error": (("readout", "component"), standard_error(pairs.mean(1))),
        "everything": (("readout", "prompt"), effects[..., place[0, -1]]),
    }
    kept = {name: results[name] for name in ("readout", "text", "target_text")}
    names = np.array([str(component) for component in chosen], object)
    return xr.Dataset(found, {"component": names, **kept}, {**results.attrs, "orders": orders, "orders_seed": seed})


def require_pairs(orders: int) -> None:
    """Refuse a number of orders that can't each be taken with its reverse.

    Raises:
        HydrascopeError: it is odd, or below 2.
    """
    if orders < 2 or orders % 2:
        raise HydrascopeError(f"{orders} orders don't pair with their reverses: ask for an even number, at least 2")


def antithetic(parts: int, orders: int, seed: int) -> Int[np.ndarray, "order part"]:
    """Random orders of the numbers of `parts`, every second one the reverse of the one before it."""
    generator = np.random.default_rng(seed)
    drawn = (generator.permutation(parts) for _ in range(orders // 2))
    return np.array([order for forward in drawn for order in (forward, forward[::-1])])


def visited_subsets(
    orders: Int[np.ndarray, "order part"],
) -> tuple[Bool[np.ndarray, "run part"], Int[np.ndarray, "order step"]]:
    """The combinations that ablating in these orders passes, each once; and which one each order has at each step."""
    rank = orders.argsort(1)
    reached = rank[:, None, :] <= np.arange(orders.shape[1])[:, None]
    runs, place = np.unique(reached.reshape(-1, orders.shape[1]), axis=0, return_inverse=True)
    return runs, place.reshape(orders.shape)


def marginal_effects(
    effects: Float[np.ndarray, "*any run"], orders: Int[np.ndarray, "order part"], place: Int[np.ndarray, "order step"]
) -> Float[np.ndarray, "*any pair part"]:
    """What ablating each part changes, the mean of each order and the next one, its reverse.

    Args:
        effects: of the combinations that are `passed`.
        place: which of them each order has at each step.
    """
    changes = np.diff(effects[..., place], prepend=0.0)
    by_part = changes[..., np.arange(len(orders))[:, None], orders.argsort(1)]
    return np.asarray((by_part[..., ::2, :] + by_part[..., 1::2, :]) / 2)


def standard_error(pairs: Float[np.ndarray, "*any pair part"]) -> Float[np.ndarray, "*any part"]:
    """Of the mean over pairs of orders, which are independent draws; NaN where there is one."""
    count = pairs.shape[-2]
    if count < 2:
        return np.full_like(pairs[..., 0, :], np.nan)
    return np.asarray(pairs.std(-2, ddof=1) / count**0.5)
