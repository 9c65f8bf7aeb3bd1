"""Write parts of the changes that ablations make: what `hydrascope.Split` measures.

An engine writes whole values. A part of a change becomes one: the clean value of the sublayer plus the part. So parts
need no code of their own in the engines. In one pass a component has one value, so that overrides that write different
parts at one sublayer are measured in passes one after another.
"""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hydrascope.ablations.ablation import Values
from hydrascope.components.component import Component, Override
from hydrascope.engines.clean.activations import CleanActivations
from hydrascope.engines.override_change import override_change, sites_of_change
from hydrascope.engines.readouts import Readouts
from hydrascope.models.language_model import LanguageModel
from hydrascope.runs.plan import Plan


def stretches(overrides: Sequence[Override], most: int) -> Iterator[slice]:
    """Yield stretches of at most `most` overrides that can be measured in one pass.

    >>> list(stretches([Override.parse(each) for each in ("attn.0", "mlp.0", "attn.0:boost")], 8))
    [slice(0, 2, None), slice(2, 3, None)]
    """
    start, taken = 0, set[Component]()
    for place, override in enumerate(overrides):
        sublayers = {*override.at_sublayers.ablated} if override.part else set()
        apart = bool(override.part) != bool(overrides[start].part) or bool(taken & sublayers)
        if place - start == most or apart:
            yield slice(start, place)
            start, taken = place, set()
        taken |= sublayers
    yield slice(start, len(overrides))


def written(overrides: Sequence[Override]) -> tuple[Override, ...]:
    """Return the overrides that an engine carries out for a stretch: parts by whole sublayers."""
    return tuple(override.at_sublayers if override.part else override for override in overrides)


def values_of(
    plan: Plan,
    clean: CleanActivations,
    patches: Values,
    readouts: Readouts,
    prompts: Sequence[int],
    overrides: Sequence[Override],
) -> Values:
    """Return the values that a stretch of overrides writes: patches, or clean values plus parts.

    Args:
        patches: the patches of each component.
        readouts: the readouts of the same prompts, in the order of the plan's labels.
        prompts: the indices of the prompts.
    """
    if not overrides[0].part:
        return patches
    values = {
        sublayer: _with_part(plan, clean, patches, readouts, prompts, override, sublayer)
        for override in overrides
        for sublayer in override.at_sublayers.ablated
    }
    return values.__getitem__


@torch.no_grad()
def _with_part(
    plan: Plan,
    clean: CleanActivations,
    patches: Values,
    readouts: Readouts,
    prompts: Sequence[int],
    override: Override,
    sublayer: Component,
) -> Float[Tensor, "prompt patch 1 width"]:
    """Return the sublayer's clean output plus the part of its change."""
    model, part = plan.model, override.part
    assert part is not None
    before = _clean_last(model, clean, sublayer, prompts)
    change = _change(model, clean, patches, prompts, override, sublayer)
    if part.kind == "dose":
        change = part.dose * change
    else:
        direction = readouts.rows[plan.labels.index(part.readout)].direction.to(change)[:, None]
        along = _projected(change, direction)
        change = along if part.kind == "readout" else change - along
    return (before[:, None].to(change) + change)[:, :, None].to(model.dtype)


def _projected(
    change: Float[Tensor, "prompt patch width"], direction: Float[Tensor, "prompt 1 width"]
) -> Float[Tensor, "prompt patch width"]:
    """Return the projection of changes on a direction; 0 on a direction that is 0."""
    square = direction.square().sum(-1, keepdim=True)
    share = (change * direction).sum(-1, keepdim=True) / torch.where(square > 0, square, 1)
    return share * direction


def _change(
    model: LanguageModel,
    clean: CleanActivations,
    patches: Values,
    prompts: Sequence[int],
    override: Override,
    sublayer: Component,
) -> Float[Tensor, "prompt patch width"]:
    """Return the change of a sublayer's output at the last position by an ablation alone."""
    components = [component for component in override.ablated if component.sublayer == sublayer]
    new = {component: patches(component)[:, :, 0].to(model.device) for component in components}
    sites = sites_of_change(model, tuple(components))
    return override_change(model, new, {site: _clean_last(model, clean, site, prompts) for site in sites})


def _clean_last(
    model: LanguageModel, clean: CleanActivations, site: Component, prompts: Sequence[int]
) -> Float[Tensor, "prompt columns"]:
    """Return clean activations at the last position."""
    return clean.values[site][torch.from_numpy(clean.row_index[list(prompts), 0])].to(model.device)
