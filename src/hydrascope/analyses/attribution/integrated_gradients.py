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
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.memory import Batch
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.config import EstimatorOptions
from hydrascope.utils.errors import HydrascopeError


def integrated_gradients(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    steps: int = 16,
    **options: Unpack[EstimatorOptions],
) -> xr.Dataset:
    """Integrated gradients from a component's clean value to its patch (Sundararajan et al. 2017; Marks et al. 2024).

        ⟨patch − clean value, mean over α of ∂π̂/∂value at clean value + α(patch − clean value)⟩

    that component alone replaced, at all of its positions, everything downstream recomputed; α = (j + ½)/steps, the
    midpoint rule. By completeness it becomes `total` itself as `steps` grow: what the quadrature leaves is of the order
    of 1/steps², 1/steps where activations have kinks (ReLU), and never goes where the model jumps (which experts of a
    mixture are chosen). Dear: a forward pass of a copy of the prompt for each component, patch and step, and a backward
    pass for every readout, down to the component. `sweep` gets `total` for much less.

        >>> hs.analyses.attribution.integrated_gradients(model, prompts, hs.Mean(), ablate="mlp")     # doctest: +SKIP

    Args:
        model, prompts, ablation, options: as for `atp`; `batch_size` counts copies of a prompt here.
        steps: how many values of α.

    Returns:
        as `atp`, with the attribute `steps` besides.

    Raises:
        HydrascopeError: as `atp`; or there is no step.
    """
    if steps < 1:
        raise HydrascopeError(f"{steps} steps: integrate over at least one")
    method = partial(_integrated, steps)
    settings = {"steps": steps}
    return run_estimator(
        "integrated_gradients", method, lambda rows: Batch(1, rows), model, prompts, ablation, settings, **options
    )


def _integrated(steps: int, batch: PromptBatch) -> dict[str, Tensor]:
    return {"estimate": torch.stack([_one_prompt(steps, batch, place) for place in range(len(batch.indices))], 1)}


def _one_prompt(steps: int, batch: PromptBatch, place: int) -> Tensor:
    """`[readout, ablated]` The estimates for one prompt."""
    found: dict[Component, Tensor] = {}
    for site in batch.plan.sites:
        found |= _one_site(steps, batch, place, [component for component in batch.components if component.site == site])
    return torch.stack([found[component] for component in batch.components], -1)


def _one_site(steps: int, batch: PromptBatch, place: int, components: list[Component]) -> dict[Component, Tensor]:
    """`[readout]` The estimates for one prompt, of components whose values stand at one site."""
    index, site = batch.indices[place], components[0].site
    slots = len(batch.plan.positions[index].positions)
    positions = batch.positions[place, :slots]
    own = torch.stack([batch.own(component)[place, 0, :slots] for component in components])
    change = torch.stack([batch.change(component)[place, :, :slots] for component in components])
    columns = torch.stack([_columns(batch.model, component) for component in components]).to(positions.device)
    part, patch, step = (
        each.flatten().to(positions.device)
        for each in torch.meshgrid(*map(torch.arange, (*change.shape[:2], steps)), indexing="ij")
    )
    # [readout, component]
    total = change.new_zeros(len(batch.plan.labels), len(components))
    for rows in torch.arange(len(part), device=part.device).split(batch.rows):
        along = change[part[rows], patch[rows]]
        values = own[part[rows]] + (step[rows, None, None] + 0.5) / steps * along
        where = (
            torch.arange(len(rows), device=rows.device)[:, None, None],
            positions[:, None],
            columns[part[rows], None],
        )

        def write(hidden: Tensor, where: tuple = where, values: Tensor = values) -> Tensor:
            return hidden.detach().index_put(where, values.to(hidden.dtype))

        readouts = batch.readouts([index] * len(rows))
        graph = record_graph(batch.model, [batch.plan.tokens[index]] * len(rows), readouts, [site], write)
        for number in range(len(readouts.rows)):
            slope = graph.slopes(number)[site][where].to(along.dtype)
            total[number].index_add_(0, part[rows], (slope * along).sum((1, 2)))
    return dict(zip(components, (total / (steps * change.shape[1])).unbind(1), strict=True))


def _columns(model: LanguageModel, component: Component) -> Tensor:
    return torch.arange(model.site_width(component.site))[model.columns(component)]
