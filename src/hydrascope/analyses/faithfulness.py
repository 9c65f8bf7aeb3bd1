"""Circuits: how much of a readout the most important parts give without the rest.

An order of importance is a claim, and this is its test: a circuit of the first parts of a good order does what the
whole model does. Self-repair misleads orders that are made by ablating one part at a time, which passes over what is
backed up.
"""

from collections.abc import Sequence
from typing import Unpack

import numpy as np
import xarray as xr

from hydrascope.ablations.ablation import Ablation
from hydrascope.analyses.joint_ablation import joint_effects, require_affordable
from hydrascope.components.component import Component
from hydrascope.components.selection import ModelShape, Selection, select_components
from hydrascope.measures.bootstrap import Bootstrap, interval
from hydrascope.measures.restoration import drop_unbounded
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.config import AnalysisOptions
from hydrascope.utils.errors import HydrascopeError

#: The shares of parts that the MIB benchmark keeps.
SHARES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


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
    """How faithful circuits are that keep the first parts of an order of importance and ablate the rest.

        >>> s = hs.analyses.shapley(model, prompts, hs.Mean())["shapley"][0].mean("prompt")  # doctest: +SKIP
        >>> order = s.sortby(s)["component"].values.tolist()  # doctest: +SKIP
        >>> hs.analyses.faithfulness(model, prompts, hs.Mean(), order=order)["cpr"]  # doctest: +SKIP

    As the MIB benchmark defines it (Mueller et al. 2025, arXiv 2504.13151), with parts as the nodes:

        f(k) = (m(C_k) − m(∅)) / (m(M) − m(∅)),

    m the mean of π̂ over prompts and patches, M the whole model, C_k the model with only the first ⌊k · parts⌋ parts of
    `order` kept and its other parts ablated together, by the same patch, and ∅ the model with all of them ablated. What
    isn't in `order` is never ablated. CPR, the circuit performance ratio, is the area under f (higher is better); CMD,
    the circuit-model distance, the area under |1 − f| (0 is best), both by the trapezoidal rule over `shares`, as they
    are, not their logarithms. So with the benchmark's shares f = 1 everywhere makes a CPR of 0.999.

    Args:
        ablation: as for `sweep`; by default `Resample()`. The benchmark's is `Counterfactual()`, with at="all".
        order: parts, the most important first.
        shares: of the parts that are kept, at least two, ascending, from 0 to 1.
        bootstrap: of the intervals, over prompts. They take the order as given: where it was found on the same prompts,
            it fits these better than it does others.
        options: of `sweep`: readouts, at, target, engine, batch_size, progress.

    Returns:
        - `faithfulness` f [bound, readout, share], and `cpr`, `cmd` [bound, readout], without unit: ratios of means
          over prompts, not means of ratios. Without bounds, NaN, where the interval of m(M) − m(∅) holds 0.
        - `kept` [share] how many parts are.
        - `effect` [readout, prompt, share] the total effect of ablating the rest, mean over patches, in the readout's
          unit, and `everything` [readout, prompt] that of ablating all: f = 1 − mean effect / mean everything.

    Raises:
        HydrascopeError: as `sweep`; or the shares are no such list.
    """
    if len(shares) < 2 or not (shares[0] >= 0 and shares[-1] <= 1 and (np.diff(shares) > 0).all()):
        raise HydrascopeError(f"{list(shares)} are no shares to keep: give at least two, ascending from 0 to 1")
    chosen = select_components(model, order)
    # A share of the parts that is a whole number shall not be rounded below it.
    kept = np.floor(np.array(shares) * len(chosen) + 1e-9).astype(int)
    circuits = np.unique(np.append(kept[kept < len(chosen)], 0))
    ablated = np.arange(len(chosen)) >= circuits[:, None]
    results = joint_effects(model, prompts, ablation, chosen, ablated, **options)
    effects = results["total"].mean("patch", dtype=np.float64).transpose("readout", "prompt", "ablated").values
    # The whole model, last, lacks nothing.
    effects = np.append(effects, np.zeros((*effects.shape[:2], 1)), -1)
    samples = xr.Dataset(
        {
            "effect": (("readout", "prompt", "share"), effects[..., np.searchsorted(circuits, kept)]),
            "everything": (("readout", "prompt"), effects[..., 0]),
        },
        {"share": list(shares), "readout": results["readout"]},
    )
    found = interval(_areas, samples, bootstrap or Bootstrap())
    ratios = xr.Dataset(
        {name: drop_unbounded(found[name], found["everything"]) for name in ("faithfulness", "cpr", "cmd")}
    )
    texts = {name: results[name] for name in ("text", "target_text")}
    return ratios.merge(samples).assign(kept=("share", kept)).assign_coords(texts).assign_attrs(results.attrs)


def growing_sets(model: ModelShape, keep: Selection, of: Selection) -> tuple[list[Component], list[float]]:
    """The order and the shares for `faithfulness` that keep none of some parts, the first, the first two, … and all.

        >>> growing(model, "attn.3,mlp.5", "layers")  # doctest: +SKIP

    Args:
        keep: parts, the most important first.
        of: all parts, those among them; the others are ablated, but in the last circuit, which is the whole model.

    Raises:
        HydrascopeError: a part to keep isn't among the others, or there are too many.
    """
    first, every = select_components(model, keep), select_components(model, of)
    if strangers := [component for component in first if component not in every]:
        raise HydrascopeError(
            f"{strangers[0]} can't be kept, since it is not among the parts that are ablated: have it among these"
        )
    require_affordable(len(first) + 1, "keep fewer parts")
    rest = [component for component in every if component not in first]
    kept = [*range(len(first) + 1), *([len(every)] if rest else [])]
    return [*first, *rest], [number / len(every) for number in kept]


def _areas(means: xr.Dataset) -> xr.Dataset:
    """f and the areas, from the means over prompts."""
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
