"""AtP*: attribution patching in which paths can't cancel each other unseen."""

from collections.abc import Iterator
from functools import partial
from typing import Unpack

import torch
import xarray as xr
from torch import Tensor

from hydrascope.ablations.ablation import Ablation
from hydrascope.analyses.attribution.estimator import PromptBatch, run_estimator
from hydrascope.analyses.attribution.gradients import record_graph
from hydrascope.components.component import Component
from hydrascope.loading.any_model import takes_any_model
from hydrascope.models.hooks import Handle, hooked, on_output
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.memory import Batch
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.config import EstimatorOptions
from hydrascope.utils.errors import HydrascopeError


@takes_any_model
def atp_star(
    model: LanguageModel, prompts: AnyPrompts, ablation: Ablation | None = None, **options: Unpack[EstimatorOptions]
) -> xr.Dataset:
    """Estimate total effects by attribution patching with GradDrop.

    Source: Kramár et al. 2024, §3.1.2.

        >>> a = hs.analyses.attribution.atp_star(model, prompts, hs.Resample(2), ablate="mlp")
        >>> magnitude = a["magnitude"].mean("prompt")

    With L blocks, and I_l the estimate of `atp` from a backward pass that drops the gradient of everything that block
    l, its attention and its MLP, adds to the residual stream,

        estimate = Σ_l I_l / (L − 1)        magnitude = Σ_l |I_l| / (L − 1)

    The paper has `magnitude` alone (Eq. 11, 12), which it averages over prompts: a size without sign, never below
    |estimate|. The signed `estimate` is ours: in it a path through m blocks above the component's own counts
    1 − m/(L − 1) times, so a component that only acts directly keeps the estimate of `atp`. The QK fix, the other half
    of AtP*, is for queries and keys, which can't be ablated here. The method costs one forward pass of the prompts, and
    L backward passes a readout.

    Args:
        model: as for `atp`.
        prompts: as for `atp`.
        ablation: as for `atp`.
        options: as for `atp`.

    Returns:
        the dataset of `atp`, and `magnitude` [readout, prompt, ablated], mean over patches, in the same unit.

    Raises:
        HydrascopeError: as `atp`; or the model has a single block, which leaves nothing to drop.
    """
    if len(model.blocks) < 2:
        raise HydrascopeError(f"{model.name} has one block: GradDrop needs two or more; use atp")
    return run_estimator("atp_star", _dropped, lambda rows: Batch(rows, 1), model, prompts, ablation, {}, **options)


def _dropped(batch: PromptBatch) -> dict[str, Tensor]:
    drop = _Drop(batch.model)
    with hooked(drop.hooks()):
        graph = record_graph(batch.model, batch.tokens, batch.readouts(batch.indices), batch.plan.sites)
    by_block = []
    for block in range(len(batch.model.blocks)):
        drop.block = block
        # Components of the dropped block reach the residual stream through that block only: their slope is 0.
        by_block.append({site: slope * (site.block != block) for site, slope in batch.slopes(graph).items()})
    slopes = {site: torch.stack([dropped[site] for dropped in by_block]) for site in graph.values}
    # [block, readout, prompt, patch, ablated]
    products = batch.products(slopes)
    others = len(by_block) - 1
    return {"estimate": products.sum(0).mean(-2) / others, "magnitude": products.abs().sum(0).mean(-2) / others}


class _Drop:
    """Drops the gradient of what one block adds to the residual stream, in backward passes.

    Attributes:
        block: the block.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.block = 0

    def hooks(self) -> Iterator[Handle]:
        """Return the hooks of the forward pass."""
        for sublayer in self.model.sublayers:
            yield on_output(self.model.output(sublayer), partial(self._copy_with_hook, sublayer))

    def _copy_with_hook(self, sublayer: Component, hidden: Tensor) -> Tensor:
        copy = hidden.clone()
        copy.register_hook(  # type: ignore[no-untyped-call, unused-ignore]
            lambda slope: torch.zeros_like(slope) if sublayer.block == self.block else slope
        )
        return copy
