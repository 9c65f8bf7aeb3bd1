"""Common steps of all attribution methods: plan, patches, batches and one dataset."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Unpack

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hydrascope.ablations.ablation import Ablation, Patches, draw_patches
from hydrascope.analyses.attribution.gradients import Graph, require_gradients
from hydrascope.components.component import Component
from hydrascope.components.selection import refuse_terms, select_components
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.engines.readouts import Readouts
from hydrascope.models.batching import first_batch
from hydrascope.models.language_model import LanguageModel, wider
from hydrascope.models.memory import Batch, within_memory
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.assemble import initial_dataset
from hydrascope.runs.attrs import settings_of
from hydrascope.runs.batches import compute_clean_activations
from hydrascope.runs.config import BatchSize, EstimateOptions, SweepConfig
from hydrascope.runs.plan import Plan, make_plan
from hydrascope.storage.schema import add_units, flat_attributes
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.progress import show_progress

#: Settings of a plan that concern exact measurements only.
_ENGINE_SETTINGS = ("engine", "read", "metrics", "keep")

_LONG_NAMES = {
    "estimate": "estimated total effect of the ablation, mean over patches",
    "magnitude": "estimated size of the total effect of the ablation, mean over patches",
}


@dataclass(frozen=True)
class PromptBatch:
    """Some prompts of a plan with their patches.

    Attributes:
        plan: the plan.
        clean: the clean activations of the plan's prompts.
        indices: the numbers of the prompts in the plan.
        rows: the number of copies of one prompt in a forward pass.
    """

    plan: Plan
    clean: CleanActivations
    indices: Sequence[int]
    rows: int

    @property
    def model(self) -> LanguageModel:
        return self.plan.model

    @property
    def tokens(self) -> list[list[int]]:
        """Return the token ids of each prompt."""
        return [self.plan.tokens[index] for index in self.indices]

    @property
    def components(self) -> list[Component]:
        """Return the ablated components."""
        return [override.ablated[0] for override in self.plan.overrides]

    @cached_property
    def positions(self) -> Int[Tensor, "prompt slot"]:
        """Return the ablated positions; shorter lists repeat their last one."""
        return torch.from_numpy(self.clean.padded_positions(self.indices)).to(self.model.device)

    @cached_property
    def _patches(self) -> Patches:
        return draw_patches(self.plan.ablation, self.clean, self.indices)

    @cached_property
    def _unrepeated(self) -> Bool[Tensor, "prompt slot"]:
        """Return a mask of the slots that aren't repeated."""
        counts = torch.tensor([len(self.plan.positions[index].positions) for index in self.indices])
        return torch.arange(self.positions.shape[1]) < counts[:, None]

    def readouts(self, indices: Sequence[int]) -> Readouts:
        """Return the readouts of the prompts at `indices`."""
        return Readouts.of(self.model, self.plan.readouts, self.plan.tokens_of(self.clean), indices)

    def clean_activations(self, component: Component) -> Float[Tensor, "prompt 1 slot columns"]:
        """Return the clean activations of a component."""
        own = self.clean.own_activations(component, self.indices)
        return own.to(self.model.device, wider(own.dtype))

    def patches(self, component: Component) -> Float[Tensor, "prompt patch slot columns"]:
        """Return the patches of a component."""
        return self._patches.values(component).to(self.model.device, wider(self.model.dtype))

    def change(
        self, component: Component, before: Float[Tensor, "prompt 1 slot columns"] | None = None
    ) -> Float[Tensor, "prompt patch slot columns"]:
        """Return patch minus the activation before, by default the clean one; 0 in repeated slots."""
        patch = self.patches(component)
        before = self.clean_activations(component) if before is None else before.to(patch)
        return (patch - before) * self._unrepeated[:, None, :, None].to(patch)

    def slopes(self, graph: Graph) -> dict[Component, Float[Tensor, "readout prompt slot columns"]]:
        """Return ∂π̂/∂activation of each readout at every site, at the ablated positions."""
        prompts = torch.arange(len(self.indices), device=self.model.device)[:, None]
        by_readout = [
            {site: slope[prompts, self.positions] for site, slope in graph.slopes(number).items()}
            for number in range(len(graph.readouts.rows))
        ]
        return {site: torch.stack([slopes[site] for slopes in by_readout]) for site in graph.values}

    def products(
        self, slopes: Mapping[Component, Float[Tensor, "*more prompt slot columns"]], graph: Graph | None = None
    ) -> Float[Tensor, "*more prompt patch ablated"]:
        """Return ⟨patch − activation, slope⟩ of each component, summed over positions.

        The activations are those of `graph`, by default the clean ones.
        """
        prompts = torch.arange(len(self.indices), device=self.model.device)[:, None]
        products = []
        for component in self.components:
            columns, before = self.model.columns(component), None
            if graph is not None:
                before = graph.values[component.site][prompts, self.positions].detach()[:, None, :, columns]
            change = self.change(component, before)
            slope = slopes[component.site][..., columns].to(change.dtype)
            products.append(torch.einsum("...psc,pksc->...pk", slope, change))
        return torch.stack(products, -1)


#: A method: it returns variables `[readout, prompt, ablated]` for some prompts.
Estimator = Callable[[PromptBatch], dict[str, Tensor]]


def run_estimator(
    name: str,
    method: Estimator,
    batch: Callable[[int], Batch],
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None,
    settings: Mapping[str, Any],
    *,
    batch_size: BatchSize = "auto",
    progress: bool = False,
    **options: Unpack[EstimateOptions],
) -> xr.Dataset:
    """Return a method's estimates, with the coordinates and settings of a result of `sweep`.

    Args:
        name: the method's name.
        method: the method.
        batch: a function that divides a number of rows into prompts and copies of a prompt.
        model: as for `sweep`.
        prompts: as for `sweep`.
        ablation: as for `sweep`.
        settings: settings of the method, kept as attributes.
        batch_size: the number of rows in a forward pass; `auto` takes what memory allows. Halved when memory runs out.
        progress: whether to show the progress.
        options: options of `sweep`: `ablate`, `at`, `readouts`, `target`.

    Raises:
        HydrascopeError: as `sweep`; several components are ablated together; no gradient goes through a sublayer; or an
            estimate isn't finite.
    """
    chosen = select_components(model, options.get("ablate", "layers"))  # refuses joint ablations
    refuse_terms(chosen, "an attribution method")
    config = SweepConfig(**options, metrics=(), keep="means", engine="reference")
    plan = make_plan(model, prompts, ablation, config)
    at_once = plan.batch(batch_size)
    start = time.perf_counter()
    require_gradients(model, min(plan.tokens, key=len))
    clean = compute_clean_activations(plan, at_once, [range(len(plan.tokens))])
    rows = plan.memory.graph_rows(max(map(len, plan.tokens))) if batch_size == "auto" else batch_size
    pieces = list(_estimate_batches(plan, clean, method, batch(rows), progress))
    order = np.argsort([index for indices, _ in pieces for index in indices])
    found = {key: np.concatenate([piece[key] for _, piece in pieces], 1)[:, order] for key in pieces[0][1]}
    base = initial_dataset(plan, clean).drop_dims("component")
    attributes = {key: value for key, value in settings_of(plan).items() if key not in _ENGINE_SETTINGS}
    result = add_units(base, attributes["units"]).assign(
        {
            key: (
                ("readout", "prompt", "ablated"),
                values,
                {"long_name": _LONG_NAMES[key], "units": attributes["units"]},
            )
            for key, values in found.items()
        }
    )
    settled = {**attributes, "method": name, **settings, "seconds": time.perf_counter() - start}
    result.attrs = flat_attributes(settled)
    return result


def _estimate_batches(
    plan: Plan, clean: CleanActivations, method: Estimator, batch: Batch, progress: bool
) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    """Yield estimates for some prompts at a time, the shortest first to save padding."""
    remaining = sorted(range(len(plan.tokens)), key=lambda index: len(plan.tokens[index]))

    def estimate(remaining: Sequence[int], batch: Batch) -> dict[str, np.ndarray]:
        indices = remaining[: batch.prompts]
        found = method(PromptBatch(plan, clean, indices, batch.overrides))
        for values in found.values():
            bad = (~values.isfinite()).any(2).any(0).nonzero()
            if len(bad):
                prompt = plan.prompt_label(indices[int(bad[0])])
                raise HydrascopeError(
                    f"the gradients of {prompt} aren't finite: the model overflows; use a wider dtype"
                )
        return {key: values.detach().cpu().numpy().astype(plan.dtype) for key, values in found.items()}

    with show_progress(len(remaining), 0, progress) as advance:
        while remaining:
            count = len(first_batch(plan.model, plan.tokens, remaining, batch.prompts))
            found, fitted = within_memory(partial(estimate, remaining), Batch(count, batch.overrides))
            batch = batch if fitted.prompts == count else fitted
            done, remaining = remaining[: fitted.prompts], remaining[fitted.prompts :]
            yield done, found
            advance(len(done))
