"""Compute the prefix that the rows of a batch share.

It consists of the clean pass at final positions, and of the keys and values before each prompt's suffix.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines.attention import Prefix
from hydrascope.engines.clean.clean_pass import CleanPass
from hydrascope.engines.clean.opening import compute_batch_with_prefix
from hydrascope.engines.kernels.matmul import Routines
from hydrascope.engines.kernels.patching import fast_kernels
from hydrascope.models.language_model import LanguageModel


@dataclass(frozen=True)
class SharedPrefix:
    """The tensors that all ablated rows of a batch of prompts share, computed once.

    Attributes:
        prefix: the keys and values before each prompt's suffix.
        clean: the clean pass at each prompt's final position.
    """

    prefix: Prefix
    clean: CleanPass

    @property
    def tensors(self) -> list[Tensor]:
        """List all tensors that take memory; none is a view of a larger one."""
        prefix, clean = self.prefix, self.clean
        kept = [each for by in (prefix.keys, prefix.values, prefix.visible, prefix.own) for each in by.values()]
        return [*kept, *clean.values.values(), clean.embed, clean.final, clean.normed]

    def with_tensors(self, tensors: Sequence[Tensor]) -> "SharedPrefix":
        """Replace all tensors, in the order of `self.tensors`."""
        each = iter(tensors)
        prefix, clean = self.prefix, self.clean
        keys, values, visible, own = (
            {block: next(each) for block in by} for by in (prefix.keys, prefix.values, prefix.visible, prefix.own)
        )
        prefix = replace(prefix, keys=keys, values=values, visible=visible, own=own)
        return SharedPrefix(
            prefix, CleanPass({site: next(each) for site in clean.values}, next(each), next(each), next(each))
        )

    @property
    def nbytes(self) -> int:
        """Count the bytes that all tensors take."""
        return sum(each.nbytes for each in self.tensors)


def compute_prefix(
    model: LanguageModel,
    tokens: Sequence[Sequence[int]],
    positions: Int[Tensor, "prompt slot"],
    sites: Collection[Component],
    routines: Routines,
) -> SharedPrefix:
    """Compute the prefix of prompts that are ablated at `positions`.

    Args:
        sites: the sites of the clean activations in it.

    Raises:
        HydrascopeError: the prompts may not share a batch.
    """
    nowhere = torch.zeros(0, dtype=torch.long)
    return compute_prefix_and_clean_pass(model, tokens, positions, sites, routines, nowhere, nowhere)[0]


def compute_prefix_and_clean_pass(
    model: LanguageModel,
    tokens: Sequence[Sequence[int]],
    positions: Int[Tensor, "prompt slot"],
    sites: Collection[Component],
    routines: Routines,
    prompts: Int[Tensor, "position"],
    at: Int[Tensor, "position"],
) -> tuple[SharedPrefix, CleanPass]:
    """Compute the prefix, and take activations of the same pass at positions `at` of `prompts`.

    Raises:
        HydrascopeError: the prompts may not share a batch.
    """
    last = torch.tensor([len(prompt) - 1 for prompt in tokens])
    prefix = Prefix.of(last, positions, model.device)
    with model.measuring(), fast_kernels(model, routines):
        numbers = torch.cat([torch.arange(len(tokens)), prompts])
        found = compute_batch_with_prefix(model, tokens, prefix, numbers, torch.cat([last, at]), sites)
    return SharedPrefix(prefix, found[: len(tokens)]), found[len(tokens) :]
