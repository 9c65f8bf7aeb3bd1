"""The work that every tool is given: prompts, targets and patches, drawn once from a seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.shapes import Shape, parts, visit
from hydrascope.components.component import Component, Kind

#: How many of the 1,209 CounterFact prompts have how many tokens, estimated as characters / 4.065, which
#: gives the mean (10.02) and the longest (27) that a GPT-NeoX vocabulary gives.
LENGTHS = {
    3: 4, 4: 24, 5: 35, 6: 96, 7: 128, 8: 150, 9: 141, 10: 130, 11: 152, 12: 105, 13: 82,
    14: 54, 15: 38, 16: 19, 17: 13, 18: 16, 19: 9, 20: 4, 21: 5, 22: 2, 27: 2,
}  # fmt: skip

PATCHES = 15


@dataclass(frozen=True)
class Work:
    """What is done with every prompt: what is ablated, one by one, each with `PATCHES` patches, and where.

    Where layers are ablated all layers are read; where heads are, all heads and all MLPs.

    Attributes:
        at: the prompt's `last` position, or `all` of them.
    """

    ablate: Literal["layers", "heads"] = "layers"
    at: Literal["last", "all"] = "last"

    def sites(self, shape: Shape) -> list[Component]:
        """Where what is read stands, in the order of a forward pass; and what is ablated."""
        kinds: tuple[Kind, Kind] = ("attn" if self.ablate == "layers" else "head", "mlp")
        return [Component(block, kind) for block in range(shape.layers) for kind in kinds]

    def read(self, shape: Shape) -> list[Component]:
        """What is read: at each site its layer, or all its heads."""
        return [component for site in self.sites(shape) for component in _parts_at(site, shape)]

    def ablated(self, shape: Shape) -> list[Component]:
        """What is ablated, in the order of every result here."""
        return [component for component in self.read(shape) if self.ablate == "layers" or component.is_unit]

    def columns(self, component: Component, shape: Shape) -> slice:
        """Which columns of what stands at its site are the value of `component`."""
        width = shape.width // shape.heads
        return slice(component.unit * width, (component.unit + 1) * width) if component.is_unit else slice(None)

    @property
    def positions(self) -> slice:
        """Which of a prompt's positions are ablated."""
        return slice(-1, None) if self.at == "last" else slice(None)


def _parts_at(site: Component, shape: Shape) -> list[Component]:
    return [Component(site.block, "head", unit) for unit in range(shape.heads)] if site.kind == "head" else [site]


@dataclass(frozen=True)
class Prompt:
    """One prompt's share of the work.

    Attributes:
        tokens: `[token]`.
        target: the clean run's most likely next token.
        patches: `[ablated, patch, slot, columns]`, other prompts' clean values, as far from their ends as the
            prompt's ablated positions are from its own.
    """

    tokens: Int[Tensor, "token"]
    target: int
    patches: Float[Tensor, "ablated patch slot columns"]


@dataclass(frozen=True)
class Answer:
    """What every tool must find for a prompt, in logits; `component` is what is read.

    Attributes:
        unembed: `[component]` ⟨y_c, r(σ)⟩ of the clean run (Eq. 10).
        row_unembed: `[ablated, patch, component]` ⟨y_c^k, r(σ)⟩ at the clean run's σ (Eq. 13).
        row_logit: `[ablated, patch]` π̂^k, the ablated run's centred logit of the target (Eq. 12).
    """

    unembed: Float[Tensor, "component"]
    row_unembed: Float[Tensor, "ablated patch component"]
    row_logit: Float[Tensor, "ablated patch"]

    def of(self, ablated: Sequence[int]) -> "Answer":
        """The part that is about some of the ablated components."""
        numbers = list(ablated)
        return Answer(self.unembed, self.row_unembed[numbers], self.row_logit[numbers])

    def difference(self, other: "Answer") -> float:
        """The largest difference from `other` in any number, in logits."""
        pairs = (
            (self.unembed, other.unembed),
            (self.row_unembed, other.row_unembed),
            (self.row_logit, other.row_logit),
        )
        return max((mine.double() - theirs.double()).abs().max().item() for mine, theirs in pairs)


def natural_lengths(count: int, seed: int = 0) -> tuple[int, ...]:
    """`count` lengths distributed as in `LENGTHS`: quantiles at evenly spaced ranks, and the longest, shuffled."""
    everyone = [length for length, number in sorted(LENGTHS.items()) for _ in range(number)]
    ranks = [round((i + 0.5) * len(everyone) / count - 0.5) for i in range(count - 1)]
    lengths = [everyone[rank] for rank in ranks] + [everyone[-1]]
    random.Random(seed).shuffle(lengths)
    return tuple(lengths)


@torch.inference_mode()
def draw_task(model: PreTrainedModel, shape: Shape, lengths: Sequence[int], work: Work, seed: int = 0) -> list[Prompt]:
    """Random prompts of these lengths, with the patches that `hydrascope.sweep` draws by default.

    `PATCHES` distinct other prompts, none too short, are drawn for each; what they are patched with is computed here,
    plainly.
    """
    generator = torch.Generator().manual_seed(seed)
    vocabulary = shape.config.vocab_size
    tokens = [torch.randint(vocabulary, (length,), generator=generator) for length in lengths]
    clean = [_clean_run(model, shape, work, prompt) for prompt in tokens]
    needed = [1 if work.at == "last" else length for length in lengths]
    prompts = []
    for index, (prompt, slots) in enumerate(zip(tokens, needed, strict=True)):
        others = [other for other, length in enumerate(lengths) if other != index and length >= slots]
        # As hydrascope.Resample draws them, from the seed and the prompt's place.
        sources = np.random.default_rng([0, index]).choice(others, PATCHES, replace=False)
        patches = [
            torch.stack(
                [clean[source].values[component.site][-slots:, work.columns(component, shape)] for source in sources]
            )
            for component in work.ablated(shape)
        ]
        prompts.append(Prompt(prompt, clean[index].target, torch.stack(patches)))
    return prompts


@dataclass(frozen=True)
class _CleanRun:
    """`[position, columns]` what stands at each site; and the most likely next token."""

    values: dict[Component, Tensor]
    target: int


def _clean_run(model: PreTrainedModel, shape: Shape, work: Work, tokens: Tensor) -> _CleanRun:
    where = parts(model, shape)
    values: dict[Component, Tensor] = {}

    def keep(site: Component, hidden: Tensor) -> None:
        values[site] = hidden[0].clone()

    handles = [visit(where, site, partial(keep, site)) for site in work.sites(shape)]
    try:
        logits = model(tokens[None], logits_to_keep=1).logits[0, -1]
    finally:
        for handle in handles:
            handle.remove()
    return _CleanRun(values, int(logits.argmax()))
