"""What all runs of some prompts share, and need only once: their clean run, and what their last positions attend to."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines.attention import Prefix, attending, causal_attention
from hydrascope.engines.clean.clean_pass import CleanPass, compute_one_batch_at
from hydrascope.engines.kernels.matmul import Routines
from hydrascope.engines.kernels.patching import fast_kernels
from hydrascope.models.language_model import LanguageModel


@dataclass(frozen=True)
class SharedPrefix:
    """Of a batch of prompts.

    Attributes:
        prefix: the keys and values before each prompt's suffix.
        clean: the clean run at each prompt's final position.
    """

    prefix: Prefix
    clean: CleanPass

    @property
    def tensors(self) -> list[Tensor]:
        """All that takes memory, none of it anyone else's."""
        prefix, clean = self.prefix, self.clean
        kept = [each for by in (prefix.keys, prefix.values, prefix.visible, prefix.own) for each in by.values()]
        return [*kept, *clean.values.values(), clean.embed, clean.final, clean.normed]

    def of(self, tensors: Sequence[Tensor]) -> "SharedPrefix":
        """The same with other `tensors`, in their order."""
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
        """How much memory it takes."""
        return sum(each.nbytes for each in self.tensors)


def compute_prefix(
    model: LanguageModel,
    tokens: Sequence[Sequence[int]],
    positions: Int[Tensor, "prompt slot"],
    sites: Collection[Component],
    routines: Routines,
) -> SharedPrefix:
    """Return what the runs of `tokens` share that begin at `positions`, with the clean values of `sites`.

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
    prompts: Int[Tensor, "place"],
    places: Int[Tensor, "place"],
) -> tuple[SharedPrefix, CleanPass]:
    """As `shared`, and what the same pass shows at some places of some prompts, as `compute_clean_pass_at`."""
    last = torch.tensor([len(prompt) - 1 for prompt in tokens])
    prefix = Prefix.of(last, positions, model.device)
    with model.measuring(), fast_kernels(model, routines), attending(model, causal_attention(prefix)):
        runs = torch.cat([torch.arange(len(tokens)), prompts])
        run = compute_one_batch_at(model, tokens, runs, torch.cat([last, places]), sites)
    return SharedPrefix(prefix, run[: len(tokens)]), run[len(tokens) :]
