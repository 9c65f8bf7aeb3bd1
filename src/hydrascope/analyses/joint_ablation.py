"""Parts of a model ablated together, in as many combinations as asked for: a row says what a run ablates."""

from collections.abc import Sequence
from typing import Unpack

import xarray as xr
from jaxtyping import Bool
from numpy import ndarray

from hydrascope.ablations.ablation import Ablation
from hydrascope.components.component import Component, Override
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.config import ExperimentOptions
from hydrascope.runs.sweep import sweep
from hydrascope.utils.errors import HydrascopeError

#: The most runs that are made for one answer. With more, planning them alone takes longer than anybody waits.
MOST_RUNS = 20_000


def joint_effects(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None,
    components: Sequence[Component],
    ablated: Bool[ndarray, "run part"],
    **options: Unpack[ExperimentOptions],
) -> xr.Dataset:
    """As `sweep`, each run ablating those of `parts` that its row names, all by the same patch.

    Args:
        ablated: rows that differ, each with a part in it.
        options: of `sweep`.

    Returns:
        as `sweep`, `ablated` in the order of the rows; of the attributes, `ablate` names the parts, not every run.
    """
    overrides = [
        Override(tuple(component for component, yes in zip(components, row, strict=True) if yes)) for row in ablated
    ]
    results = sweep(model, prompts, ablation, ablate=overrides, keep="effects", **options)
    return results.assign_attrs(ablate=",".join(map(str, components)))


def require_affordable(runs: int, remedy: str) -> None:
    """Refuse more runs than `MOST_RUNS`.

    Raises:
        HydrascopeError: there are more; `remedy` says what to ask for instead.
    """
    if runs > MOST_RUNS:
        raise HydrascopeError(f"this takes {runs:,} runs a prompt, and {MOST_RUNS:,} is the most: {remedy}")
