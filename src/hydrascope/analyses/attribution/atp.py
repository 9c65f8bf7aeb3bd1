"""Attribution patching: the total effect to first order."""

from typing import Unpack

import xarray as xr
from torch import Tensor

from hydrascope.ablations.ablation import Ablation
from hydrascope.analyses.attribution.estimator import PromptBatch, run_estimator
from hydrascope.analyses.attribution.gradients import record_graph
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.memory import Batch
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.config import EstimatorOptions


def atp(
    model: LanguageModel, prompts: AnyPrompts, ablation: Ablation | None = None, **options: Unpack[EstimatorOptions]
) -> xr.Dataset:
    """Attribution patching (Nanda 2023; Syed et al. 2023; Kramár et al. 2024, Eq. 4).

        ⟨patch − clean value, ∂π̂/∂value⟩, summed over the ablated positions

    the gradient taken in the clean run, at the component's site. Exact where π̂ is linear in the value. Costs one
    forward pass of the prompts and one backward pass a readout, however many components and patches there are.

        >>> hs.analyses.attribution.atp(model, prompts, hs.Resample(5), ablate="heads")["estimate"]   # doctest: +SKIP

    Args:
        model, prompts, ablation: as for `sweep`, which draws the same patches.
        options: `ablate` (parts one by one), `at`, `readouts`, `target` and `progress` of `sweep`; `batch_size`, how
            many rows a forward pass has, here prompts.

    Returns:
        `estimate` [readout, prompt, ablated] of the mean over patches of `total`, in its unit, with the coordinates of
        `sweep`; attributes are its settings, `method` and the `seconds` that it took, clean runs included.

    Raises:
        HydrascopeError: as `sweep`; several parts are ablated together; or no gradient goes through some layer.
    """
    return run_estimator("atp", _first_order, lambda rows: Batch(rows, 1), model, prompts, ablation, {}, **options)


def _first_order(batch: PromptBatch) -> dict[str, Tensor]:
    graph = record_graph(batch.model, batch.tokens, batch.readouts(batch.indices), batch.plan.sites)
    return {"estimate": batch.products(batch.slopes(graph)).mean(-2)}
