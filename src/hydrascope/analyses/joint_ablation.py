"""Joint ablations: combinations of components ablated together, one row for each."""

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

#: The most overrides of one analysis; planning more would take too long.
MOST_OVERRIDES = 20_000


def joint_effects(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None,
    components: Sequence[Component],
    ablated: Bool[ndarray, "override component"],
    **options: Unpack[ExperimentOptions],
) -> xr.Dataset:
    """Measure the effects of joint ablations; a row of `ablated` selects among `components`.

    Args:
        model: the model to measure.
        prompts: the prompts to measure.
        ablation: as for `sweep`. All components of an override write the same patch.
        components: the components that the columns of `ablated` stand for.
        ablated: distinct rows, each with at least one component.
        options: options of `sweep`.

    Returns:
        the result of `sweep`, with `ablated` in the order of the rows. Its attribute `ablate` names the components, not
        every override.
    """
    overrides = [
        Override(tuple(component for component, yes in zip(components, row, strict=True) if yes)) for row in ablated
    ]
    results = sweep(model, prompts, ablation, ablate=overrides, keep="effects", **options)
    return results.assign_attrs(ablate=",".join(map(str, components)))


def require_affordable(overrides: int, remedy: str) -> None:
    """Refuse more overrides than `MOST_OVERRIDES`.

    Args:
        overrides: the number of overrides a prompt.
        remedy: advice for the error message.

    Raises:
        HydrascopeError: there are more.
    """
    if overrides > MOST_OVERRIDES:
        raise HydrascopeError(
            f"this needs {overrides:,} overrides a prompt, more than the limit of {MOST_OVERRIDES:,}: {remedy}"
        )
