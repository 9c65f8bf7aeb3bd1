"""Compute the change that ablating each source of an edge makes in what its sublayer writes."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hydrascope.ablations.ablation import draw_patches
from hydrascope.components.component import Component
from hydrascope.components.edge import EMBED
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.engines.override_change import override_change, sites_of_change
from hydrascope.runs.plan import Plan


def source_changes(
    plan: Plan, clean: CleanActivations, sources: Sequence[Component], indices: Sequence[int]
) -> dict[Component, Tensor]:
    """Return the change of what each source adds to the stream, `[prompt, patch, slot, width]`.

    It is 0 in slots that repeat a position.
    """
    model, patches = plan.model, draw_patches(plan.ablation, clean, indices)
    offsets = clean.padded_offsets(indices)
    rows = torch.from_numpy(clean.row_index[np.asarray(indices)[:, None], offsets - 1])
    slots = torch.tensor([len(plan.positions[index].positions) for index in indices])
    own = (torch.arange(offsets.shape[1]) < slots[:, None])[:, None, :, None]
    changes = {}
    for source in sources:
        values = patches.values(source).to(model.device)
        before = {
            site: clean.values[site][rows].flatten(0, 1).to(model.device) for site in sites_of_change(model, (source,))
        }
        flat = values.transpose(1, 2).flatten(0, 1)
        change = override_change(model, {source: flat}, before).unflatten(0, values.shape[::2][:2]).transpose(1, 2)
        scale = 1.0 if source == EMBED else model.residual_scale
        changes[source] = change * scale * own.to(change)
    return changes
