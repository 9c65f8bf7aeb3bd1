"""Faithfulness of circuits: how much of a readout the most important components give alone.

This tests an order of importance: a circuit of the first components of a good order does what the whole model does.
Orders made by ablating one component at a time miss components that have a backup.
"""

from collections.abc import Sequence
from typing import Unpack

import numpy as np
import xarray as xr

from hydrascope.ablations.ablation import Ablation
from hydrascope.analyses.joint_ablation import joint_effects, require_affordable
from hydrascope.components.component import Component
from hydrascope.components.model_shape import ModelShape
from hydrascope.components.selection import Selection, select_components
from hydrascope.loading.any_model import takes_any_model
from hydrascope.measures.bootstrap import Bootstrap, interval
from hydrascope.measures.restoration import drop_unbounded
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.config import AnalysisOptions
from hydrascope.utils.errors import HydrascopeError

#: The shares of components that the MIB benchmark keeps.
SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


@takes_any_model
def faithfulness(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    order: Selection,
    shares: Sequence[float] = SHARES,
    bootstrap: Bootstrap | None = None,
    **options: Unpack[AnalysisOptions],
) -> xr.Dataset:
    """Measure circuits that keep the first components of an order and ablate the rest.

        >>> f = hs.analyses.faithfulness(model, prompts, hs.Zero(), order="mlp.3,attn.3,mlp.5", shares=(0, 0.5, 1))
        >>> cpr = f["cpr"].sel(bound="estimate")

    The definition is that of the MIB benchmark (Mueller et al. 2025, arXiv 2504.13151), with components as the nodes:

        f(k) = (m(C_k) − m(∅)) / (m(M) − m(∅)),

    where m is the mean of π̂ over prompts and patches and M is the whole model. C_k keeps the first ⌊k · n⌋ of the n
    components of `order`; the others are ablated together, by the same patch. ∅ has all n ablated. A component that
    isn't in `order` is never ablated. CPR, the circuit performance ratio, is the area under f (higher is better). CMD,
    the circuit-model distance, is the area under |1 − f| (0 is best). Both use the trapezoidal rule over `shares` (not
    over their logarithms), so f = 1 everywhere gives a CPR of 0.999 with the benchmark's shares.

    Args:
        model: the model to measure.
        prompts: the prompts to measure.
        ablation: as for `sweep`; by default `Resample()`. The benchmark uses `Counterfactual()` with at="all".
        order: components, the most important first.
        shares: the shares of components to keep: at least two, ascending, from 0 to 1.
        bootstrap: settings of the intervals, which are over prompts. They take the order as given, so they are too
            favourable if the order was found on the same prompts.
        options: options of `sweep`: readouts, at, target, engine, batch_size, progress.

    Returns:
        a dataset with

        - `faithfulness` f [bound, readout, share], and `cpr`, `cmd` [bound, readout], without unit: ratios of means
          over prompts, not means of ratios. Their bounds are NaN where the interval of m(M) − m(∅) contains 0.
        - `kept` [share]: the number of components kept.
        - `effect` [readout, prompt, share]: the total effect of ablating the rest, mean over patches, in the readout's
          unit, and `everything` [readout, prompt]: that of ablating all. f = 1 − mean effect / mean everything.

    Raises:
        HydrascopeError: as `sweep`; or the shares are not ascending numbers from 0 to 1.
    """
    if len(shares) < 2 or not (shares[0] >= 0 and shares[-1] <= 1 and (np.diff(shares) > 0).all()):
        raise HydrascopeError(f"invalid shares {list(shares)}: give at least two, ascending from 0 to 1")
    chosen = select_components(model, order)
    # The small term keeps a whole number of components from being rounded down.
    kept = np.floor(np.array(shares) * len(chosen) + 1e-9).astype(int)
    circuits = np.unique(np.append(kept[kept < len(chosen)], 0))
    ablated = np.arange(len(chosen)) >= circuits[:, None]
    results = joint_effects(model, prompts, ablation, chosen, ablated, **options)
    effects = results["total"].mean("patch", dtype=np.float64).transpose("readout", "prompt", "ablated").values
    # The last circuit is the whole model: its effect is 0.
    effects = np.append(effects, np.zeros((*effects.shape[:2], 1)), -1)
    samples = xr.Dataset(
        {
            "effect": (("readout", "prompt", "share"), effects[..., np.searchsorted(circuits, kept)]),
            "everything": (("readout", "prompt"), effects[..., 0]),
        },
        {"share": list(shares), "readout": results["readout"]},
    )
    ratios = interval(_areas, samples, bootstrap or Bootstrap())
    bounded = xr.Dataset(
        {name: drop_unbounded(ratios[name], ratios["everything"]) for name in ("faithfulness", "cpr", "cmd")}
    )
    texts = {name: results[name] for name in ("text", "target_text")}
    return bounded.merge(samples).assign(kept=("share", kept)).assign_coords(texts).assign_attrs(results.attrs)


def growing_sets(model: ModelShape, keep: Selection, of: Selection) -> tuple[list[Component], list[float]]:
    """Return the order and shares for `faithfulness` that keep 0, 1, 2, … given components.

    The last share keeps all components, which is the whole model.

        >>> order, shares = growing_sets(model, "attn.3,mlp.5", "layers")

    Args:
        model: the model.
        keep: components to keep, the most important first.
        of: all components, those in `keep` included.

    Raises:
        HydrascopeError: a component to keep isn't in `of`, or there are too many.
    """
    first, every = select_components(model, keep), select_components(model, of)
    if strangers := [component for component in first if component not in every]:
        raise HydrascopeError(f"{strangers[0]} can't be kept: it is not among the ablated components; add it to them")
    require_affordable(len(first) + 1, "keep fewer components")
    rest = [component for component in every if component not in first]
    kept = [*range(len(first) + 1), *([len(every)] if rest else [])]
    return [*first, *rest], [number / len(every) for number in kept]


def _areas(means: xr.Dataset) -> xr.Dataset:
    """Return f and the areas from the means over prompts."""
    everything = means["everything"].where(means["everything"] != 0)
    f = 1 - means["effect"] / everything
    return xr.Dataset(
        {
            "faithfulness": f,
            "cpr": f.integrate("share"),
            "cmd": abs(1 - f).integrate("share"),
            "everything": everything,
        }
    )
