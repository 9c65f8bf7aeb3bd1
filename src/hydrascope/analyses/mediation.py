"""Mediation and interactions: an experiment measured in memory and evaluated, in one call."""

from typing import Unpack

import xarray as xr

from hydrascope import measures
from hydrascope.ablations.ablation import Ablation
from hydrascope.components.experiments import Interactions, Mediation
from hydrascope.components.selection import Selection
from hydrascope.loading.any_model import takes_any_model
from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.config import AnalysisOptions
from hydrascope.runs.sweep import sweep


@takes_any_model
def mediation(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    ablate: Selection = "attn",
    mediators: Selection = "layers",
    **options: Unpack[AnalysisOptions],
) -> xr.Dataset:
    """Measure how much each mediator restores after each ablation.

        >>> m = hs.analyses.mediation(model, prompts, hs.Zero(), ablate="attn.3", mediators="mlp")
        >>> restored_by = m["restored_by"].mean("prompt")

    Args:
        model: the model to measure.
        prompts: the prompts to measure.
        ablation: as for `sweep`; by default `Resample()`.
        ablate: the components to ablate, as in `Mediation`.
        mediators: the components whose reaction is measured, as in `Mediation`.
        options: options of `sweep`: readouts, at, target, engine, batch_size, progress.

    Returns:
        the dataset of `hydrascope.measures.mediation`: among others `restored_by` (necessary) and `restored_alone`
        (sufficient) [readout, prompt, ablated, mediator], in the readouts' units.

    Raises:
        HydrascopeError: as `sweep`; a mediator is a neuron, or an override to ablate freezes a component already.
    """
    experiment = Mediation(ablate, mediators)
    return measures.mediation(sweep(model, prompts, ablation, ablate=experiment, keep="means", **options))


@takes_any_model
def interactions(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    components: Selection = "layers",
    **options: Unpack[AnalysisOptions],
) -> xr.Dataset:
    """Measure how the effect of ablating two components differs from the sum of their effects.

        >>> i = hs.analyses.interactions(model, prompts, hs.Zero(), components="attn.3,mlp.3,mlp.5")
        >>> interaction = i["interaction"].mean("prompt")

    Args:
        model: the model to measure.
        prompts: the prompts to measure.
        ablation: as for `sweep`; by default `Resample()`.
        components: the components whose pairs are measured, as in `Interactions`.
        options: options of `sweep`: readouts, at, target, engine, batch_size, progress.

    Returns:
        the dataset of `hydrascope.measures.interactions`.

    Raises:
        HydrascopeError: as `sweep`; there is only one component.
    """
    experiment = Interactions(components)
    return measures.interactions(sweep(model, prompts, ablation, ablate=experiment, keep="effects", **options))
