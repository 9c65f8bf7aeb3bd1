"""Who repairs, in one call each: an experiment measured in memory, and what its runs say once they are subtracted."""

from typing import Unpack

import xarray as xr

from hydrascope import measures
from hydrascope.ablations.ablation import Ablation
from hydrascope.components.experiments import Interactions, Mediation
from hydrascope.components.selection import Selection
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.config import ExperimentOptions
from hydrascope.runs.sweep import sweep


def mediation(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    ablate: Selection = "attn",
    mediators: Selection = "layers",
    **options: Unpack[ExperimentOptions],
) -> xr.Dataset:
    """What the reaction of each mediator to each ablation is worth, as necessary and as sufficient.

        >>> m = hs.analyses.mediation(model, prompts, hs.Zero(), ablate="attn.3", mediators="layers")  # doctest: +SKIP
        >>> m["restored_by"].mean("prompt")  # doctest: +SKIP

    Args:
        ablation: as for `sweep`; by default `Resample()`.
        ablate, mediators: as in `Mediation`.
        options: of `sweep`: readouts, metrics, at, target, engine, batch_size, progress.

    Returns:
        as `hydrascope.measures.mediation`.

    Raises:
        HydrascopeError: as `sweep`; a mediator is a neuron, or something is frozen already.
    """
    asked = Mediation(ablate, mediators)
    return measures.mediation(sweep(model, prompts, ablation, ablate=asked, keep="means", **options))


def interactions(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    parts: Selection = "layers",
    **options: Unpack[ExperimentOptions],
) -> xr.Dataset:
    """How the effects of ablating two parts differ from their sum, of all pairs of `parts`.

        >>> i = hs.analyses.interactions(model, prompts, hs.Zero(), parts="heads.8,heads.9")  # doctest: +SKIP
        >>> i["interaction"].mean("prompt")  # doctest: +SKIP

    Args:
        ablation: as for `sweep`; by default `Resample()`.
        parts: as in `Interactions`.
        options: of `sweep`: readouts, metrics, at, target, engine, batch_size, progress.

    Returns:
        as `hydrascope.measures.interactions`.

    Raises:
        HydrascopeError: as `sweep`; there is one part only.
    """
    return measures.interactions(sweep(model, prompts, ablation, ablate=Interactions(parts), keep="effects", **options))
