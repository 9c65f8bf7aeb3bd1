"""Responsibility: who is a cause of the answer, though it stands without any one part.

The answer doesn't depend on a part whose backups would give it, too; yet the part is one of its causes. How far it is
from being decisive, counted in other parts, is its degree of responsibility.
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
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.config import AnalysisOptions
from hydrascope.utils.errors import HydrascopeError


def responsibility(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    parts: Selection = "heads.9",
    most: int = 2,
    **options: Unpack[AnalysisOptions],
) -> xr.Dataset:
    """The degree of responsibility of each part for the model's most likely token.

        >>> r = hs.analyses.responsibility(model, prompts, hs.Zero(), parts="heads.9", most=2)      # doctest: +SKIP
        >>> r["responsibility"].mean("prompt")                                             # doctest: +SKIP

    It is 1/(1 + m), m the size of the smallest set of other `parts` whose ablation leaves the most likely token as it
    is, while ablating c as well changes it (Chockler & Halpern 2004): 1 for a part that decides alone, 1/2 where one
    backup must be gone first. Found exactly, by ablating all combinations of up to most + 1 parts together.

    Args:
        ablation: as for `sweep`; by default `Resample()`. Each patch is a case of its own, in which all that is ablated
            writes that patch.
        parts: layers, heads or neurons, no part together with its whole. The others are left as they are.
        most: the largest m that is looked for.
        options: of `sweep`: at, engine, batch_size, progress.

    Returns:
        - `responsibility` [prompt, component], without unit, the mean over patches; a patch with which no set of up to
          `most` others is found counts 0.
        - `contingency` [prompt, patch, component] m, −1 where there is none.

    Raises:
        HydrascopeError: as `sweep`; or there are too many combinations to run them all.
    """
    if most < 0:
        raise HydrascopeError(f"sets of up to {most} other parts: give a number from 0")
    chosen = select_components(model, parts)
    sizes = range(1, min(most + 1, len(chosen)) + 1)
    require_affordable(
        sum(comb(len(chosen), size) for size in sizes),
        f"name fewer than {len(chosen)} parts, or look for sets of fewer than {most} others",
    )
    sets = [frozenset(each) for size in sizes for each in combinations(range(len(chosen)), size)]
    ablated = np.array([[part in each for part in range(len(chosen))] for each in sets])
    results = joint_effects(model, prompts, ablation, chosen, ablated, metrics="top", **options)
    top = results["metric_ablated"].isel(metric=0).transpose("prompt", "patch", "ablated").values
    sizes_found = contingencies(top != results["metric_clean"].isel(metric=0).values[:, None, None], sets, len(chosen))
    degree = np.where(sizes_found < 0, 0.0, 1 / (1.0 + sizes_found.clip(0)))
    found = {
        "responsibility": (("prompt", "component"), degree.mean(1)),
        "contingency": (("prompt", "patch", "component"), sizes_found),
    }
    names = np.array([str(component) for component in chosen], object)
    kept = {name: results[name] for name in ("text", "target_text")}
    return xr.Dataset(found, {"component": names, **kept}, {**results.attrs, "most": most})


def contingencies(
    changed: Bool[np.ndarray, "*any set"], sets: Sequence[frozenset[int]], parts: int
) -> Int[np.ndarray, "*any part"]:
    """The size of the smallest set of others that makes each part decisive; −1 where there is none.

    Args:
        changed: whether ablating each of `sets` together changes the outcome.
        sets: all sets of the numbers of `parts`, from 1 to some size.
    """
    outcome = dict(zip(sets, np.moveaxis(changed, -1, 0), strict=True))
    outcome[frozenset()] = np.zeros(changed.shape[:-1], bool)
    smallest = np.full((parts, *changed.shape[:-1]), -1)
    for together in sorted(sets, key=len):
        for part in together:
            others = together - {part}
            decisive = outcome[together] & ~outcome[others]
            smallest[part] = np.where(decisive & (smallest[part] < 0), len(others), smallest[part])
    return np.moveaxis(smallest, 0, -1)
