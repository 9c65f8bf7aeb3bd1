"""Attribution patching: the total effect to first order."""

from typing import Unpack

import xarray as xr
from torch import Tensor

from hydrascope.ablations.ablation import Ablation
from hydrascope.analyses.attribution.estimator import PromptBatch, run_estimator
from hydrascope.analyses.attribution.gradients import record_graph
from hydrascope.loading.any_model import takes_any_model
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.memory import Batch
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.config import EstimatorOptions


@takes_any_model
def atp(
    model: LanguageModel, prompts: AnyPrompts, ablation: Ablation | None = None, **options: Unpack[EstimatorOptions]
) -> xr.Dataset:
    """Estimate total effects by attribution patching, to first order.

    Sources: Nanda 2023; Syed et al. 2023; Kramár et al. 2024, Eq. 4.

        >>> a = hs.analyses.attribution.atp(model, prompts, hs.Resample(2), ablate="heads")
        >>> estimate = a["estimate"].mean("prompt")

    The estimate is

        ⟨patch − clean activation, ∂π̂/∂activation⟩, summed over the ablated positions,

    with the gradient taken in the clean pass, at the component's site. It is exact where π̂ is linear in the
    activation. It costs one forward pass of the prompts and one backward pass a readout, for any number of components
    and patches.

    Args:
        model: as for `sweep`.
        prompts: as for `sweep`.
        ablation: as for `sweep`, which draws the same patches.
        options: options of `sweep`: `ablate` (single components), `at`, `readouts`, `target`, `progress`; and
            `batch_size`, the number of prompts in a forward pass.

    Returns:
        a dataset with `estimate` [readout, prompt, ablated], the estimate of `total`, mean over patches, in its unit.
        The coordinates are those of `sweep`; the attributes are the settings, `method` and `seconds`, the time it took,
        clean passes included.

    Raises:
        HydrascopeError: as `sweep`; several components are ablated together; or no gradient goes through a sublayer.
    """
    return run_estimator("atp", _first_order, lambda rows: Batch(rows, 1), model, prompts, ablation, {}, **options)


def _first_order(batch: PromptBatch) -> dict[str, Tensor]:
    graph = record_graph(batch.model, batch.tokens, batch.readouts(batch.indices), batch.plan.sites)
    return {"estimate": batch.products(batch.slopes(graph)).mean(-2)}
