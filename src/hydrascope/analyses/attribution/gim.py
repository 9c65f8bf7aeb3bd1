"""GIM: attribution patching with gradients that attention's own self-repair doesn't quench."""

from functools import partial
from typing import Unpack

import xarray as xr
from torch import Tensor

from hydrascope.ablations.ablation import Ablation
from hydrascope.analyses.attribution.backward_rules import Rules, apply_rules, require_supported
from hydrascope.analyses.attribution.estimator import PromptBatch, run_estimator
from hydrascope.analyses.attribution.gradients import differentiable_scale, record_graph
from hydrascope.engines.readouts import final_scale
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.memory import Batch
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.config import EstimatorOptions

_GIM = Rules()


def gim(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    rules: Rules = _GIM,
    **options: Unpack[EstimatorOptions],
) -> xr.Dataset:
    """Gradient interaction modifications (Edin et al. 2025, arXiv 2505.17630).

    `atp` with another gradient. The clean run is what it is; on the way back

    - *temperature*: of a gradient g attention's softmax passes on p ⊙ (g − ⟨g, p⟩) with p = softmax(s/T), T = 2, for
      the p of T = 1. A saturated softmax has next to no gradient, since other positions take over what one loses;
    - *frozen norms*: the scale of every norm, of queries, of keys and the final one too, is a constant; what LayerNorm
      takes off, the mean, is not;
    - *division*: each factor of a product of two gets half of the gradient: attention weights and values, queries and
      keys (values ½ in all, queries and keys ¼), and gate and value of gated MLPs.

    Without the factor 1/T of the chain rule, as in the authors' code. It ranks components: divided as it is, its size
    is not to be compared with that of `total`. Costs about what `atp` costs.

        >>> hs.analyses.attribution.gim(model, prompts, ablate="heads")["estimate"]  # doctest: +SKIP

    Args:
        model, prompts, ablation, options: as for `atp`.
        rules: the three rules, to leave some out.

    Returns:
        as `atp`, with the attributes `temperature`, `freeze_norms` and `divide` besides.

    Raises:
        HydrascopeError: as `atp`; or the model doesn't attend through transformers' AttentionInterface, is a mixture of
            experts, of which the method says nothing, or has a norm of another kind.
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
