"""Responsibility: how far a component is from deciding the answer.

The answer doesn't depend on a component whose backups would give it too; yet the component is one of its causes.
"""

from collections.abc import Sequence
from itertools import combinations
from math import comb
from typing import Unpack

import numpy as np
import xarray as xr
from jaxtyping import Bool, Int

from hydrascope.ablations.ablation import Ablation
from hydrascope.analyses.joint_ablation import joint_effects, require_affordable
from hydrascope.components.selection import Selection, select_components
from hydrascope.loading.any_model import takes_any_model
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.config import AnalysisOptions
from hydrascope.utils.errors import HydrascopeError


@takes_any_model
def responsibility(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    components: Selection = "heads.9",
    most: int = 2,
    **options: Unpack[AnalysisOptions],
) -> xr.Dataset:
    """Measure the degree of responsibility of each component for the model's most likely token.

        >>> r = hs.analyses.responsibility(model, prompts, hs.Zero(), components="heads.4", most=1)
        >>> degrees = r["responsibility"].mean("prompt")

    The degree is 1/(1 + m), where m is the size of the smallest set of other `components` whose ablation leaves the
    most likely token as it is, while ablating the component as well changes it (Chockler & Halpern 2004). It is 1 for a
    component that decides alone, and 1/2 where one backup must be ablated first. It is exact: all combinations of up to
    most + 1 components are ablated together.

    Args:
        model: the model to measure.
        prompts: the prompts to measure.
        ablation: as for `sweep`; by default `Resample()`. Each patch is a case of its own: all ablated components write
            that patch.
        components: sublayers, heads or neurons, no component together with its sublayer. Others are never ablated.
        most: the largest m to look for.
        options: options of `sweep`: at, engine, batch_size, progress.

    Returns:
        a dataset with

        - `responsibility` [prompt, component], without unit, the mean over patches. A patch counts 0 if no set of up to
          `most` others is found.
        - `contingency` [prompt, patch, component]: m, or −1 where there is none.

    Raises:
        HydrascopeError: as `sweep`; or there are too many combinations to measure.
    """
    if most < 0:
        raise HydrascopeError(f"invalid most {most}: give 0 or more")
    chosen = select_components(model, components)
    sizes = range(1, min(most + 1, len(chosen)) + 1)
    require_affordable(
        sum(comb(len(chosen), size) for size in sizes),
        f"give fewer than {len(chosen)} components, or a most below {most}",
    )
    sets = [frozenset(each) for size in sizes for each in combinations(range(len(chosen)), size)]
    ablated = np.array([[number in each for number in range(len(chosen))] for each in sets])
    results = joint_effects(model, prompts, ablation, chosen, ablated, metrics="top", **options)
    top = results["metric_ablated"].isel(metric=0).transpose("prompt", "patch", "ablated").values
    sizes_found = contingencies(top != results["metric_clean"].isel(metric=0).values[:, None, None], sets, len(chosen))
    degree = np.where(sizes_found < 0, 0.0, 1 / (1.0 + sizes_found.clip(0)))
    variables = {
        "responsibility": (("prompt", "component"), degree.mean(1)),
        "contingency": (("prompt", "patch", "component"), sizes_found),
    }
    names = np.array([str(component) for component in chosen], object)
    texts = {name: results[name] for name in ("text", "target_text")}
    return xr.Dataset(variables, {"component": names, **texts}, {**results.attrs, "most": most})


def contingencies(
    changed: Bool[np.ndarray, "*any set"], sets: Sequence[frozenset[int]], components: int
) -> Int[np.ndarray, "*any component"]:
    """Return the size of the smallest set of others that makes each component decisive, or −1.

    Args:
        changed: whether ablating each of `sets` together changes the outcome.
        sets: all sets of component numbers, from size 1 to some size.
        components: the number of components.
    """
    outcome = dict(zip(sets, np.moveaxis(changed, -1, 0), strict=True))
    outcome[frozenset()] = np.zeros(changed.shape[:-1], bool)
    smallest = np.full((components, *changed.shape[:-1]), -1)
    for together in sorted(sets, key=len):
        for component in together:
            others = together - {component}
            decisive = outcome[together] & ~outcome[others]
            smallest[component] = np.where(decisive & (smallest[component] < 0), len(others), smallest[component])
    return np.moveaxis(smallest, 0, -1)
