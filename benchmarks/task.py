"""The work that every tool is given: prompts, targets and patches, drawn once from a seed."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from benchmarks.shapes import Shape, parts
from hydrascope.ablation import Resample, patch_sources

#: How many of the 1,209 CounterFact prompts have how many tokens, estimated as characters / 4.065, which
#: gives the mean (10.02) and the longest (27) that a GPT-NeoX vocabulary gives.
LENGTHS = {
    3: 4, 4: 24, 5: 35, 6: 96, 7: 128, 8: 150, 9: 141, 10: 130, 11: 152, 12: 105, 13: 82,
    14: 54, 15: 38, 16: 19, 17: 13, 18: 16, 19: 9, 20: 4, 21: 5, 22: 2, 27: 2,
}  # fmt: skip

PATCHES = 15


@dataclass(frozen=True)
class Prompt:
    """One prompt's share of the protocol.

    Attributes:
        tokens: `[token]`.
        target: the clean run's most likely next token.
        patches: `[component, patch, width]`, other prompts' clean activations at their final position.
    """

    tokens: Int[Tensor, "token"]
    target: int
    patches: Float[Tensor, "component patch width"]


@dataclass(frozen=True)
class Answer:
    """What every tool must find for a prompt, in logits.

    Attributes:
        unembed: `[component]` ⟨y_c, r(σ)⟩ of the clean run (Eq. 10).
        row_unembed: `[ablated, patch, component]` ⟨y_c^k, r(σ)⟩ at the clean run's σ (Eq. 13).
        row_logit: `[ablated, patch]` π̂^k, the ablated run's centred logit of the target (Eq. 12).
    """

    unembed: Float[Tensor, "component"]
    row_unembed: Float[Tensor, "ablated patch component"]
    row_logit: Float[Tensor, "ablated patch"]

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
def draw_task(model: PreTrainedModel, shape: Shape, lengths: Sequence[int], seed: int = 0) -> list[Prompt]:
    """Random prompts of these lengths, with the patches that `hydrascope.sweep` draws by default.

    `PATCHES` distinct other prompts are drawn for a prompt; what they are patched with is computed here, plainly.
    """
    generator = torch.Generator().manual_seed(seed)
    vocabulary = shape.config.vocab_size
    tokens = [torch.randint(vocabulary, (length,), generator=generator) for length in lengths]
    bank, targets = [], []
    for prompt in tokens:
        activations, logits = _clean_run(model, shape, prompt)
        bank.append(activations)
        targets.append(int(logits.argmax()))
    banked = torch.stack(bank)  # [prompt, component, width]
    sources = patch_sources(Resample(PATCHES), targets)
    return [
        Prompt(prompt, target, banked[chosen].transpose(0, 1).contiguous())
        for prompt, target, chosen in zip(tokens, targets, sources, strict=True)
    ]


def _clean_run(model: PreTrainedModel, shape: Shape, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """`[component, width]` every component's output at the last position, and `[vocabulary]` its logits."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        kept.append((output[0] if isinstance(output, tuple) else output)[0, -1])

    handles = [component.register_forward_hook(keep) for component in parts(model, shape).components]
    try:
        logits = model(tokens[None], logits_to_keep=1).logits[0, -1]
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(kept), logits
