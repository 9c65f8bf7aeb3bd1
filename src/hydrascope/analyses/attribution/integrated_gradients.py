"""Integrated gradients over activations: the total effect, up to quadrature."""

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
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.memory import Batch
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.config import EstimatorOptions
from hydrascope.utils.errors import HydrascopeError


@takes_any_model
def integrated_gradients(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    steps: int = 16,
    **options: Unpack[EstimatorOptions],
) -> xr.Dataset:
    """Estimate total effects by integrated gradients from the clean activation to the patch.

    Sources: Sundararajan et al. 2017; Marks et al. 2024.

        >>> i = hs.analyses.attribution.integrated_gradients(model, prompts, hs.Zero(), ablate="mlp.3", steps=4)
        >>> estimate = i["estimate"].mean("prompt")

    The estimate is

        ⟨patch − clean activation, mean over α of ∂π̂/∂activation at clean activation + α(patch − clean activation)⟩,

    with that component alone replaced, at all of its positions, and everything downstream recomputed. α = (j + ½)/steps
    is the midpoint rule. By completeness the estimate tends to `total` as `steps` grows. The quadrature error is of the
    order of 1/steps², or 1/steps where activation functions have kinks (ReLU); it stays where the model jumps (the
    choice of experts in a mixture). The method is expensive: a forward pass of a copy of the prompt for each component,
    patch and step, and a backward pass for each readout, down to the component. `sweep` measures `total` for much less.

    Args:
        model: as for `atp`.
        prompts: as for `atp`.
        ablation: as for `atp`.
        steps: the number of values of α.
        options: as for `atp`; `batch_size` counts copies of a prompt.

    Returns:
        the dataset of `atp`, with the attribute `steps` added.

    Raises:
        HydrascopeError: as `atp`; or `steps` is below 1.
    """
    if steps < 1:
        raise HydrascopeError(f"invalid steps {steps}: give 1 or more")
    method = partial(_integrated, steps)
    settings = {"steps": steps}
    return run_estimator(
        "integrated_gradients", method, lambda rows: Batch(1, rows), model, prompts, ablation, settings, **options
    )


def _integrated(steps: int, batch: PromptBatch) -> dict[str, Tensor]:
    return {"estimate": torch.stack([_one_prompt(steps, batch, row) for row in range(len(batch.indices))], 1)}


def _one_prompt(steps: int, batch: PromptBatch, row: int) -> Tensor:
    """Return the estimates `[readout, ablated]` for one prompt."""
    estimates: dict[Component, Tensor] = {}
    for site in batch.plan.sites:
        estimates |= _one_site(
            steps, batch, row, [component for component in batch.components if component.site == site]
        )
    return torch.stack([estimates[component] for component in batch.components], -1)


def _one_site(steps: int, batch: PromptBatch, row: int, components: list[Component]) -> dict[Component, Tensor]:
    """Return the estimates `[readout]` for one prompt, of components at one site."""
    index, site = batch.indices[row], components[0].site
    slots = len(batch.plan.positions[index].positions)
    positions = batch.positions[row, :slots]
    clean = torch.stack([batch.clean_activations(component)[row, 0, :slots] for component in components])
    change = torch.stack([batch.change(component)[row, :, :slots] for component in components])
    columns = torch.stack([_columns(batch.model, component) for component in components]).to(positions.device)
    component, patch, step = (
        each.flatten().to(positions.device)
        for each in torch.meshgrid(*map(torch.arange, (*change.shape[:2], steps)), indexing="ij")
    )
    # [readout, component]
    total = change.new_zeros(len(batch.plan.labels), len(components))
    for rows in torch.split(torch.arange(len(component), device=component.device), batch.rows):
        along = change[component[rows], patch[rows]]
        values = clean[component[rows]] + (step[rows, None, None] + 0.5) / steps * along
        where = (
            torch.arange(len(rows), device=rows.device)[:, None, None],
            positions[:, None],
            columns[component[rows], None],
        )

        def write(hidden: Tensor, where: tuple[Tensor, ...] = where, values: Tensor = values) -> Tensor:
            return hidden.detach().index_put(where, values.to(hidden.dtype))

        readouts = batch.readouts([index] * len(rows))
        graph = record_graph(batch.model, [batch.plan.tokens[index]] * len(rows), readouts, [site], write)
        for number in range(len(readouts.rows)):
            slope = graph.slopes(number)[site][where].to(along.dtype)
            total[number].index_add_(0, component[rows], (slope * along).sum((1, 2)))
    return dict(zip(components, (total / (steps * change.shape[1])).unbind(1), strict=True))


def _columns(model: LanguageModel, component: Component) -> Tensor:
    return torch.arange(model.site_width(component.site))[model.columns(component)]
