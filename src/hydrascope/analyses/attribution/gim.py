"""GIM: attribution patching with gradients that attention's self-repair doesn't reduce."""

from functools import partial
from typing import Unpack

import xarray as xr
from torch import Tensor

from hydrascope.ablations.ablation import Ablation
from hydrascope.analyses.attribution.backward_rules import Rules, apply_rules, require_supported
from hydrascope.analyses.attribution.estimator import PromptBatch, run_estimator
from hydrascope.analyses.attribution.gradients import differentiable_scale, record_graph
from hydrascope.engines.readouts import final_scale
from hydrascope.loading.any_model import takes_any_model
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.memory import Batch
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.config import EstimatorOptions

_GIM = Rules()


@takes_any_model
def gim(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    rules: Rules = _GIM,
    **options: Unpack[EstimatorOptions],
) -> xr.Dataset:
    """Estimate effects by gradient interaction modifications (GIM).

    Source: Edin et al. 2025, arXiv 2505.17630.

        >>> g = hs.analyses.attribution.gim(model, prompts, hs.Resample(2), ablate="heads")
        >>> estimate = g["estimate"].mean("prompt")

    This is `atp` with another gradient. The clean pass is unchanged; three rules change the backward pass:

    - *temperature*: attention's softmax passes a gradient g on as p ⊙ (g − ⟨g, p⟩) with p = softmax(s/T), T = 2, in
      place of the p of T = 1. A saturated softmax has almost no gradient, since other positions take over what one
      loses.
    - *frozen norms*: the scale of every norm, of queries, of keys and the final one too, is a constant. The mean that
      LayerNorm subtracts is not.
    - *division*: each factor of a product of two gets half of the gradient: attention weights and values, queries and
      keys (values ½ in all, queries and keys ¼), and gate and value of gated MLPs.

    The factor 1/T of the chain rule is left out, as in the authors' code. The method ranks components; because of the
    division, its size can't be compared with `total`. It costs about as much as `atp`.

    Args:
        model: as for `atp`.
        prompts: as for `atp`.
        ablation: as for `atp`.
        rules: the rules to apply; by default all three.
        options: as for `atp`.

    Returns:
        the dataset of `atp`, with the attributes `temperature`, `freeze_norms` and `divide` added.

    Raises:
        HydrascopeError: as `atp`; or the model is a mixture of experts, has an unknown norm, or its attention doesn't
            go through transformers' AttentionInterface.
    """
    require_supported(model)
    method = partial(_estimate, rules)
    return run_estimator("gim", method, lambda rows: Batch(rows, 1), model, prompts, ablation, vars(rules), **options)


def _estimate(rules: Rules, batch: PromptBatch) -> dict[str, Tensor]:
    readouts = batch.readouts(batch.indices)
    with apply_rules(batch.model, rules):
        scale = _constant_scale if rules.freeze_norms else differentiable_scale
        graph = record_graph(batch.model, batch.tokens, readouts, batch.plan.sites, scale=scale)
    return {"estimate": batch.products(batch.slopes(graph)).mean(-2)}


def _constant_scale(model: LanguageModel, residual: Tensor) -> Tensor:
    return final_scale(model, residual.detach())
