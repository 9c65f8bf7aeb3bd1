"""AtP*: attribution patching in which paths can't cancel each other unseen."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Unpack

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from hydrascope.ablations.ablation import Ablation
from hydrascope.analyses.attribution.estimator import PromptBatch, run_estimator
from hydrascope.analyses.attribution.gradients import Graph, record_graph
from hydrascope.components.component import Component, Override
from hydrascope.components.selection import refuse_terms, select_components, select_overrides
from hydrascope.loading.any_model import takes_any_model
from hydrascope.models.hooks import Handle, as_given, by_prompt, hooked, on_output, on_site
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.memory import Batch
from hydrascope.prompts.prompt import AnyPrompts
from hydrascope.runs.config import EstimatorOptions
from hydrascope.utils.errors import HydrascopeError


@takes_any_model
def atp_star(
    model: LanguageModel,
    prompts: AnyPrompts,
    ablation: Ablation | None = None,
    *,
    state: str | Override | None = None,
    **options: Unpack[EstimatorOptions],
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

    In a `state` other components are ablated throughout, by the same patch: activations and gradients are those of such
    a pass, of which there is one a patch. The `magnitude` in a state minus that without is the two-state AtP* of
    conditional co-ablation (arXiv 2607.01940). Components of the state itself have 0.

    Args:
        model: as for `atp`.
        prompts: as for `atp`.
        ablation: as for `atp`.
        state: the components that are ablated throughout, such as `head.9.6+head.9.9`.
        options: as for `atp`.

    Returns:
        the dataset of `atp`, and `magnitude` [readout, prompt, ablated], mean over patches, in the same unit.

    Raises:
        HydrascopeError: as `atp`; the state is wrong or freezes something; or the model has a single block, which
            leaves nothing to drop.
    """
    if len(model.blocks) < 2:
        raise HydrascopeError(f"{model.name} has one block: GradDrop needs two or more; use atp")
    if state is None:
        return run_estimator("atp_star", _dropped, _one_row, model, prompts, ablation, {}, **options)
    override = _state(model, state)
    chosen = select_components(model, options.get("ablate", "layers"))
    # Patches of the state's components are drawn as well.
    every = EstimatorOptions(**{**options, "ablate": list(dict.fromkeys((*chosen, *override.ablated)))})
    method, settings = partial(_dropped_in_state, override), {"state": str(override)}
    found = run_estimator("atp_star", method, _one_row, model, prompts, ablation, settings, **every)
    return found.sel(ablated=[str(component) for component in chosen])


def _one_row(rows: int) -> Batch:
    return Batch(rows, 1)


def _state(model: LanguageModel, state: str | Override) -> Override:
    """Return the override that a state names.

    Raises:
        HydrascopeError: it names several, or freezes something.
    """
    override, *more = select_overrides(model, state)
    if more:
        raise HydrascopeError(f"{state} names {1 + len(more)} states: join the components of one by +")
    if override.frozen:
        raise HydrascopeError(f"{override} freezes {override.frozen[0]}: name only what is ablated")
    refuse_terms(override.ablated, "an attribution method")
    return override


def _dropped(batch: PromptBatch) -> dict[str, Tensor]:
    _, slopes = _record(batch, ())
    return _summed(batch.products(slopes))


def _dropped_in_state(state: Override, batch: PromptBatch) -> dict[str, Tensor]:
    by_patch = []
    for patch in range(batch.plan.ablation.patches):
        graph, slopes = _record(batch, _hold(batch, state, patch))
        by_patch.append(batch.products(slopes, graph)[..., patch, :])
    return _summed(torch.stack(by_patch, -2))


def _summed(products: Float[Tensor, "block readout prompt patch ablated"]) -> dict[str, Tensor]:
    """Return the means over patches of the sums over dropped blocks."""
    others = len(products) - 1
    return {"estimate": products.sum(0).mean(-2) / others, "magnitude": products.abs().sum(0).mean(-2) / others}


def _record(
    batch: PromptBatch, state: Iterable[Handle]
) -> tuple[Graph, dict[Component, Float[Tensor, "block readout prompt slot columns"]]]:
    """Return a pass, and the slopes at every site with each block dropped.

    Args:
        batch: the prompts.
        state: hooks that hold other components in the pass.
    """
    drop = Drop(batch.model)
    with hooked(chain(state, drop.hooks())):
        graph = record_graph(batch.model, batch.tokens, batch.readouts(batch.indices), batch.plan.sites)
    by_block = []
    for block in range(len(batch.model.blocks)):
        drop.block = block
        # Components of the dropped block reach the residual stream through that block only: their slope is 0.
        by_block.append({site: slope * (site.block != block) for site, slope in batch.slopes(graph).items()})
    return graph, {site: torch.stack([dropped[site] for dropped in by_block]) for site in graph.values}


def _hold(batch: PromptBatch, state: Override, patch: int) -> Iterator[Handle]:
    """Yield hooks that write one patch of the state's components at the ablated positions."""
    prompts = torch.arange(len(batch.indices), device=batch.model.device)[:, None]

    def write(components: Sequence[Component], hidden: Tensor) -> Tensor:
        rows = by_prompt(hidden, len(batch.indices)).clone()
        for component in components:
            value = batch.patches(component)[:, patch].to(rows.dtype)
            rows[prompts, batch.positions, batch.model.columns(component)] = value
        return as_given(rows, hidden)

    for site in dict.fromkeys(component.site for component in state.ablated):
        components = [component for component in state.ablated if component.site == site]
        yield on_site(batch.model, site, partial(write, components))


class Drop:
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
