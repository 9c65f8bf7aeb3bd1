"""What all attribution methods share: the plan and the patches of `hydrascope.sweep`, batches, and one dataset."""

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
from hydrascope.components.selection import select_components
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.engines.readouts import Readouts
from hydrascope.models.batching import first_batch
from hydrascope.models.language_model import LanguageModel, wider
from hydrascope.models.memory import Batch, graph_rows, within_memory
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.assemble import initial_dataset
from hydrascope.runs.attrs import settings_of
from hydrascope.runs.batches import compute_clean_activations
from hydrascope.runs.config import BatchSize, EstimateOptions, SweepConfig
from hydrascope.runs.plan import Plan, make_plan
from hydrascope.storage.schema import add_units
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.progress import show_progress

#: What a plan says of how exact effects are measured, and estimates know nothing of.
_OF_ENGINES = ("engine", "read", "metrics", "keep")

_LONG_NAMES = {
    "estimate": "estimated total effect of the ablation, mean over patches",
    "magnitude": "estimated size of the total effect of the ablation, mean over patches",
}


@dataclass(frozen=True)
class PromptBatch:
    """Some prompts of a plan, with their patches.

    Attributes:
        indices: their places in the set.
        rows: how many copies of one prompt may be run at a time.
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
        """The token ids of each prompt."""
        return [self.plan.tokens[index] for index in self.indices]

    @property
    def components(self) -> list[Component]:
        """What is ablated, one by one."""
        return [override.ablated[0] for override in self.plan.overrides]

    @cached_property
    def positions(self) -> Int[Tensor, "prompt slot"]:
        """Where they are ablated; the last position repeated where a prompt has fewer than another."""
        return torch.from_numpy(self.clean.padded_positions(self.indices)).to(self.model.device)

    @cached_property
    def _patches(self) -> Patches:
        return draw_patches(self.plan.ablation, self.clean, self.indices)

    @cached_property
    def _counted(self) -> Bool[Tensor, "prompt slot"]:
        """Which slots aren't repeated."""
        counts = torch.tensor([len(self.plan.positions[index].positions) for index in self.indices])
        return torch.arange(self.positions.shape[1]) < counts[:, None]

    def readouts(self, indices: Sequence[int]) -> Readouts:
        """What is read of the prompts at `indices`."""
        return Readouts.of(self.model, self.plan.readouts, self.plan.tokens_of(self.clean), indices)

    def own(self, component: Component) -> Float[Tensor, "prompt 1 slot columns"]:
        """What `component` writes in the clean runs."""
        own = self.clean.own_activations(component, self.indices)
        return own.to(self.model.device, wider(own.dtype))

    def change(self, component: Component) -> Float[Tensor, "prompt patch slot columns"]:
        """Patch less clean value; 0 in repeated slots."""
        patch = self._patches.values(component).to(self.model.device, wider(self.model.dtype))
        return (patch - self.own(component)) * self._counted[:, None, :, None].to(patch)

    def slopes(self, graph: Graph) -> dict[Component, Float[Tensor, "readout prompt slot columns"]]:
        """∂π̂/∂value of each readout at every site, where the prompts are ablated."""
        prompts = torch.arange(len(self.indices), device=self.model.device)[:, None]
        each = [
            {site: slope[prompts, self.positions] for site, slope in graph.slopes(number).items()}
            for number in range(len(graph.readouts.rows))
        ]
        return {site: torch.stack([slopes[site] for slopes in each]) for site in graph.values}

    def products(
        self, slopes: Mapping[Component, Float[Tensor, "*more prompt slot columns"]]
    ) -> Float[Tensor, "*more prompt patch ablated"]:
        """⟨patch − clean value, slope⟩ of each ablated component, summed over its positions."""
        each = []
        for component in self.components:
            change = self.change(component)
            slope = slopes[component.site][..., self.model.columns(component)].to(change.dtype)
            each.append(torch.einsum("...psc,pksc->...pk", slope, change))
        return torch.stack(each, -1)


#: From some prompts to variables `[readout, prompt, ablated]`.
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
    """The estimates of `method`, with the coordinates and the settings that the results of `sweep` have.

    Args:
        batch: from how many rows a forward pass may have to how they are divided among prompts and copies of one.
        settings: of the method, kept as attributes.
        options: `ablate`, `at`, `readouts`, `target`, `progress` as for `sweep`; `batch_size`, the rows of a forward
            pass: `auto` takes what memory allows. Halved when memory runs out.

    Raises:
        HydrascopeError: as `sweep`; several parts are ablated together; no gradient goes through some layer; or an
            estimate isn't finite.
    """
    select_components(model, options.get("ablate", "layers"))  # refuses what isn't ablated one by one
    config = SweepConfig(**options, keep="means", engine="reference")
    plan = make_plan(model, prompts, ablation, config)
    at_once = plan.batch(batch_size)
    start = time.perf_counter()
    require_gradients(model, min(plan.tokens, key=len))
    clean = compute_clean_activations(plan, at_once, [range(len(plan.tokens))])
    rows = graph_rows(model, max(map(len, plan.tokens)), plan.bank_bytes) if batch_size == "auto" else batch_size
    pieces = list(_pieces(plan, clean, method, batch(rows), progress))
    order = np.argsort([index for indices, _ in pieces for index in indices])
    found = {key: np.concatenate([piece[key] for _, piece in pieces], 1)[:, order] for key in pieces[0][1]}
    base = initial_dataset(plan, clean).drop_dims("component")
    attributes = {key: value for key, value in settings_of(plan).items() if key not in _OF_ENGINES}
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
    result.attrs = {**attributes, "method": name, **settings, "seconds": time.perf_counter() - start}
    return result


def _pieces(
    plan: Plan, clean: CleanActivations, method: Estimator, batch: Batch, progress: bool
) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:
    """The estimates of some prompts after others, the shortest first so that little is padded."""
    remaining = sorted(range(len(plan.tokens)), key=lambda index: len(plan.tokens[index]))

    def measured(remaining: Sequence[int], batch: Batch) -> dict[str, np.ndarray]:
        indices = remaining[: batch.prompts]
        found = method(PromptBatch(plan, clean, indices, batch.overrides))
        for values in found.values():
            bad = (~values.isfinite()).any(2).any(0).nonzero()
            if len(bad):
                prompt = plan.prompt_label(indices[int(bad[0])])
                raise HydrascopeError(
                    f"the gradients of {prompt} aren't finite: the model overflows; take a wider dtype"
                )
        return {key: values.detach().cpu().numpy().astype(plan.dtype) for key, values in found.items()}

    with show_progress(len(remaining), 0, progress) as advance:
        while remaining:
            count = len(first_batch(plan.model, plan.tokens, remaining, batch.prompts))
            found, fitted = within_memory(partial(measured, remaining), Batch(count, batch.overrides))
            batch = batch if fitted.prompts == count else fitted
            done, remaining = remaining[: fitted.prompts], remaining[fitted.prompts :]
            yield done, found
            advance(len(done))
