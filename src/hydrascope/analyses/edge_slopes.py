"""Estimate edges linearly, by slopes at the clean pass (EAP) or averaged (EAP-IG).

EAP: Nanda 2023; Syed et al. 2023. EAP-IG over inputs: Hanna et al. 2024 (arXiv 2403.17806).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hydrascope.ablations.ablation import Counterfactual, Resample
from hydrascope.analyses.attribution.reader_gradients import reader_slopes
from hydrascope.analyses.edge_changes import source_changes
from hydrascope.components.component import Component
from hydrascope.components.edge import EMBED, Edge
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.engines.readouts import FINAL, Readouts
from hydrascope.models.language_model import wider
from hydrascope.runs.plan import Plan
from hydrascope.utils.errors import HydrascopeError

#: The steps of integrated slopes.
STEPS = 5


def edge_slopes(
    plan: Plan,
    clean: CleanActivations,
    present: Sequence[Edge],
    changes: dict[Component, Tensor],
    indices: Sequence[int],
    embeddings: Tensor | None = None,
) -> np.ndarray:
    """Return the linear estimates of edges, `[readout, prompt, edge]`, averaged over patches.

    The slopes are those at `embeddings`, by default the prompts' own.
    """
    model = plan.model
    readouts = Readouts.of(model, plan.readouts, plan.tokens_of(clean), indices)
    whole = [edge.reader for edge in present if not edge.reader.inputs]
    sublayers = list(dict.fromkeys(reader.sublayer for reader in whole if reader.sublayer is not None))
    found = reader_slopes(model, [plan.tokens[index] for index in indices], readouts, sublayers, embeddings)
    positions = torch.from_numpy(clean.padded_positions(indices)).to(model.device)
    prompts = torch.arange(len(indices), device=model.device)[:, None]
    last = torch.tensor([len(plan.tokens[index]) - 1 for index in indices], device=model.device)
    at_last = (positions == last[:, None])[..., None]
    means = {source: change.mean(1) for source, change in changes.items()}
    estimates = torch.full((len(readouts.rows), len(indices), len(present)), torch.nan, dtype=wider(model.dtype))
    for number, edge in enumerate(present):
        change = means[edge.source]
        for row, readout in enumerate(() if edge.reader.inputs else readouts.rows):
            if edge.reader.sublayer is None and readout.before != FINAL:
                # A readout inside the network reads the change itself.
                product = (change * at_last).sum(1) * readout.direction * _reads(readouts, row, edge.source)
                estimates[row, :, number] = product.sum(-1).cpu()
            else:
                slope = found[row][edge.reader.sublayer or "logits"][prompts, positions]
                estimates[row, :, number] = (slope * change).sum((1, 2)).cpu()
    return _numpy(estimates)


def require_other_prompts(plan: Plan) -> None:
    """Refuse integrated slopes unless patches replace a whole prompt by another."""
    if not isinstance(plan.ablation, Resample | Counterfactual):
        raise HydrascopeError(
            "integrated slopes go from one prompt's embeddings to another's: ablate by resample or counterfactual"
        )
    if any(len(each.positions) != len(ids) for each, ids in zip(plan.positions, plan.tokens, strict=True)):
        raise HydrascopeError("integrated slopes need all positions: give --at all")


def integrated_slopes(
    plan: Plan,
    clean: CleanActivations,
    present: Sequence[Edge],
    changes: dict[Component, Tensor],
    indices: Sequence[int],
) -> np.ndarray:
    """Return estimates by slopes averaged between the patch's embeddings and the prompt's.

    The steps are α = k/m, k = 0, …, m − 1, from the patch on (Hanna et al. 2024).
    """
    model, longest = plan.model, max(len(plan.tokens[index]) for index in indices)
    own = torch.zeros(len(indices), longest, model.width, dtype=model.dtype, device=model.device)
    everywhere = torch.from_numpy(clean.padded_positions(indices)).to(model.device)
    values = clean.own_activations(EMBED, indices)[:, 0].to(own)
    rows = torch.arange(len(indices), device=model.device)[:, None]
    own[rows, everywhere] = values
    embedding = source_changes(plan, clean, [EMBED], indices)[EMBED]
    found = []
    for patch in range(plan.ablation.patches):
        change = torch.zeros_like(own).index_put_((rows, everywhere), embedding[:, patch].to(own), accumulate=True)
        alone = {source: each[:, patch : patch + 1] for source, each in changes.items()}
        for step in range(STEPS):
            between = own + (1 - step / STEPS) * change
            found.append(edge_slopes(plan, clean, present, alone, indices, between))
    return np.asarray(np.mean(found, 0))


def _reads(readouts: Readouts, readout: int, source: Component) -> bool:
    """Whether a readout reads what a source adds to the stream."""
    below = readouts.belongs(source)
    return True if below is None else bool(below[readout])


def _numpy(values: Tensor) -> np.ndarray:
    return np.asarray(values.detach().double().cpu())
