"""AtP*: attribution patching that cancellation between paths can't hide."""

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
from hydrascope.models.hooks import Handle, hooked, on_output
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.memory import Batch
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.config import EstimatorOptions
from hydrascope.utils.errors import HydrascopeError


def atp_star(
    model: LanguageModel, prompts: AnyPrompts, ablation: Ablation | None = None, **options: Unpack[EstimatorOptions]
) -> xr.Dataset:
    """Attribution patching with GradDrop (Kramár et al. 2024, §3.1.2).

    With L blocks, and I_l the estimate of `atp` from a backward pass that drops the gradient of all that block l, its
    attention and its MLP, adds to the residual stream,

        estimate = Σ_l I_l / (L − 1)        magnitude = Σ_l |I_l| / (L − 1)

    The paper has `magnitude` alone (Eq. 11, 12), which it averages over prompts: a size without sign, never below
    |estimate|. The sign is ours: in `estimate` a path through m blocks above the component's own counts 1 − m/(L − 1)
    times, so that a component which acts directly alone keeps the estimate of `atp`. The QK fix, the other half of
    AtP*, is for queries and keys, which are no components here. Costs one forward pass of the prompts, and L backward
    passes a readout.

        >>> hs.analyses.attribution.atp_star(model, prompts, ablate="heads")["magnitude"]             # doctest: +SKIP

    Args:
        model, prompts, ablation, options: as for `atp`.

    Returns:
        as `atp`, with `magnitude` [readout, prompt, ablated] besides, the mean over patches, likewise.

    Raises:
        HydrascopeError: as `atp`; or the model has one block, which leaves nothing to drop.
    """
    if len(model.blocks) < 2:
        raise HydrascopeError(f"{model.name} has one block: GradDrop needs two or more; take atp")
    return run_estimator("atp_star", _dropped, lambda rows: Batch(rows, 1), model, prompts, ablation, {}, **options)


def _dropped(batch: PromptBatch) -> dict[str, Tensor]:
    drop = _Drop(batch.model)
    with hooked(drop.hooks()):
        graph = record_graph(batch.model, batch.tokens, batch.readouts(batch.indices), batch.plan.sites)
    each = []
    for block in range(len(batch.model.blocks)):
        drop.block = block
        # What is ablated in the block itself adds to the residual stream in no other way.
        each.append({site: slope * (site.block != block) for site, slope in batch.slopes(graph).items()})
    slopes = {site: torch.stack([dropped[site] for dropped in each]) for site in graph.values}
    # [block, readout, prompt, patch, ablated]
    products = batch.products(slopes)
    others = len(each) - 1
    return {"estimate": products.sum(0).mean(-2) / others, "magnitude": products.abs().sum(0).mean(-2) / others}


class _Drop:
    """Lets no gradient through what one block adds to the residual stream, in backward passes after a forward pass.

    Attributes:
        block: which.
    """

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.block = 0

    def hooks(self) -> Iterator[Handle]:
        """The hooks of the forward pass."""
        for sublayer in self.model.sublayers:
            yield on_output(self.model.output(sublayer), partial(self._watched, sublayer))

    def _watched(self, sublayer: Component, hidden: Tensor) -> Tensor:
        copy = hidden.clone()
        copy.register_hook(lambda slope: torch.zeros_like(slope) if sublayer.block == self.block else slope)
        return copy
