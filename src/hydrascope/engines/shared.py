"""What all runs of some prompts share, and need only once: their clean run, and what their last positions attend to."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from hydrascope.components import Component
from hydrascope.engines.attention import Prefix, attending, causal_attention
from hydrascope.engines.clean import CleanRun, clean_run_at
from hydrascope.engines.kernels import fast_kernels
from hydrascope.engines.routines import Routines
from hydrascope.model import LanguageModel


@dataclass(frozen=True)
class Shared:
    """Of a batch of prompts.

    Attributes:
        prefix: the keys and values before each prompt's suffix.
        clean: the clean run at each prompt's final position.
    """

    prefix: Prefix
    clean: CleanRun

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        prefix, clean = self.prefix, self.clean
        kept = [each for by in (prefix.keys, prefix.values, prefix.visible, prefix.own) for each in by.values()]
        kept += [*clean.values.values(), clean.embed, clean.final, clean.normed]
        return sum(each.nbytes for each in kept)


def shared(
    model: LanguageModel,
    tokens: Sequence[Sequence[int]],
    positions: Int[Tensor, "prompt slot"],
    sites: Collection[Component],
    routines: Routines,
) -> Shared:
    """What the runs of `tokens` share that begin at `positions`; with the clean values of `sites`."""
    nowhere = torch.zeros(0, dtype=torch.long)
    return shared_and_clean_run_at(model, tokens, positions, sites, routines, nowhere, nowhere)[0]


def shared_and_clean_run_at(
    model: LanguageModel,
    tokens: Sequence[Sequence[int]],
    positions: Int[Tensor, "prompt slot"],
    sites: Collection[Component],
    routines: Routines,
    prompts: Int[Tensor, "place"],
    places: Int[Tensor, "place"],
) -> tuple[Shared, CleanRun]:
    """As `shared`, and what the same pass shows at some places of some prompts, as `clean_run_at`."""
    last = torch.tensor([len(prompt) - 1 for prompt in tokens])
    prefix = Prefix.of(last, positions, model.device)
    with model.measuring(), fast_kernels(model, routines), attending(model, causal_attention(prefix)):
        runs = torch.cat([torch.arange(len(tokens)), prompts])
        run = clean_run_at(model, tokens, runs, torch.cat([last, places]), sites)
    return Shared(prefix, run[: len(tokens)]), run[len(tokens) :]
