"""What an ablated component writes instead: zero, mean, noise and resample ablation (Appendix A, Eq. 35–39).

Every draw depends on the seed and on the prompt's place in its set alone: batch size, order and number of workers
change nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hydrascope.components import Component
from hydrascope.engines.clean import clean_run
from hydrascope.engines.hooks import hooked, on_output
from hydrascope.errors import HydrascopeError
from hydrascope.model import LanguageModel, wider


@dataclass(frozen=True)
class Zero:
    """Write zeros (Eq. 35)."""


@dataclass(frozen=True)
class Mean:
    """Write the component's mean over the prompt set's final positions (Eq. 36)."""


@dataclass(frozen=True)
class Noise:
    """Write what the component writes when Gaussian noise is added to the prompt's token embeddings (Eq. 37).

    Attributes:
        patches: how many draws of noise.
        scale: the noise's standard deviation, in units of the token embeddings' standard deviation.
        seed: of the draws.
    """

    patches: int = 15
    scale: float = 3.0
    seed: int = 0


@dataclass(frozen=True)
class Resample:
    """Write what the component writes at the final position of other prompts of the set (Eq. 38).

    Attributes:
        patches: how many prompts, all distinct, never the prompt itself.
        seed: of the draws.
        different_target: take only prompts whose target differs, so that no patch pushes the same token.
    """

    patches: int = 15
    seed: int = 0
    different_target: bool = False


Ablation = Zero | Mean | Noise | Resample


@dataclass(frozen=True)
class Bank:
    """The clean activations of a whole prompt set, computed once.

    Attributes:
        activations: `[prompt, component, width]` y_c at each prompt's final position, on the CPU.
        argmax: `[prompt]` the most likely next token of each.
    """

    activations: Float[Tensor, "prompt component width"]
    argmax: Int[Tensor, "prompt"]


@dataclass(frozen=True)
class Patches:
    """What the ablated components of a batch of prompts write.

    Attributes:
        values: per component `[prompt, patch, width]`.
        sources: `[prompt, patch]` the prompt that each patch came from, −1 where it came from none.
    """

    values: dict[Component, Float[Tensor, "prompt patch width"]]
    sources: Int[np.ndarray, "prompt patch"]


def clean_bank(model: LanguageModel, tokens: Sequence[Sequence[int]], batch_size: int) -> Bank:
    """Run all prompts once, the shortest first so that little is padded, `batch_size` at a time."""
    width, count = model.width, len(tokens)
    activations = torch.empty(count, len(model.components), width, dtype=model.dtype)
    argmax = torch.empty(count, dtype=torch.long)
    order = sorted(range(count), key=lambda index: len(tokens[index]))
    for start in range(0, count, batch_size):
        batch = order[start : start + batch_size]
        run = clean_run(model, [tokens[index] for index in batch])
        activations[batch] = run.written.cpu()
        argmax[batch] = run.logits(model).argmax(-1).cpu()
    return Bank(activations, argmax)


def patch_sources(
    ablation: Ablation, targets: Sequence[int], indices: Sequence[int] | None = None
) -> Int[np.ndarray, "prompt patch"]:
    """Which prompt each patch comes from, −1 where it comes from none.

    Args:
        ablation: as declared.
        targets: the target token of each prompt of the set.
        indices: the prompts that are patched, by their place in the set; all by default.

    Raises:
        HydrascopeError: a prompt has fewer other prompts to draw from than it needs patches.
    """
    patched = range(len(targets)) if indices is None else indices
    if isinstance(ablation, Zero | Mean):
        return np.full((len(patched), 1), -1)
    if ablation.patches < 1:
        raise HydrascopeError(f"{ablation.patches} patches: ask for at least one")
    if isinstance(ablation, Noise):
        return np.full((len(patched), ablation.patches), -1)
    tokens = np.asarray(targets)
    return np.stack([_other_prompts(ablation, tokens, index) for index in patched])


def _other_prompts(ablation: Resample, targets: Int[np.ndarray, "prompt"], index: int) -> Int[np.ndarray, "patch"]:
    """The prompts that the patches of the prompt at `index` come from."""
    allowed = targets != targets[index] if ablation.different_target else np.ones(len(targets), dtype=bool)
    allowed[index] = False
    others = np.flatnonzero(allowed)
    if len(others) < ablation.patches:
        kind = "with another target " if ablation.different_target else ""
        raise HydrascopeError(
            f"{ablation.patches} resample patches need {ablation.patches} other prompts {kind}in the set, "
            f"and prompt {index + 1} has {len(others)}: add prompts or ask for fewer with --patches"
        )
    return np.random.default_rng([ablation.seed, index]).choice(others, ablation.patches, replace=False)


def draw(
    ablation: Ablation,
    model: LanguageModel,
    bank: Bank,
    tokens: Sequence[Sequence[int]],
    targets: Sequence[int],
    indices: Sequence[int],
) -> Patches:
    """What the ablated components write for the prompts `indices` of the set `tokens`.

    Args:
        ablation, model: as declared.
        bank: the clean activations of the whole set.
        tokens, targets: of the whole set.
        indices: the prompts of the batch, by their place in the set.

    Raises:
        HydrascopeError: as `patch_sources`.
    """
    sources = patch_sources(ablation, targets, indices)
    match ablation:
        case Zero():
            values = bank.activations.new_zeros(len(sources), 1, *bank.activations.shape[1:])
        case Mean():
            mean = bank.activations.mean(0, dtype=wider(bank.activations.dtype)).to(bank.activations.dtype)
            values = mean.expand(len(sources), 1, *mean.shape)
        case Resample():
            values = bank.activations[torch.from_numpy(sources)]
        case Noise():
            spread = embedding_std(model) * ablation.scale
            values = torch.stack([_noisy(ablation, model, tokens[index], index, spread) for index in indices])
    return Patches({c: values[:, :, i] for i, c in enumerate(model.components)}, sources)


def _noisy(
    ablation: Noise, model: LanguageModel, tokens: Sequence[int], index: int, spread: float
) -> Float[Tensor, "patch component width"]:
    """What every component writes in runs of one prompt with noise on its token embeddings."""
    generator = np.random.default_rng([ablation.seed, index])
    shape = (ablation.patches, len(tokens), model.hf.get_input_embeddings().weight.shape[1])
    noise = torch.from_numpy(generator.standard_normal(shape)).to(model.device, model.dtype) * spread
    with hooked([on_output(model.hf.get_input_embeddings(), lambda embedded: embedded + noise)]):
        return clean_run(model, [tokens] * ablation.patches).written.cpu()


@torch.no_grad()
def embedding_std(model: LanguageModel) -> float:
    """The standard deviation of the token embeddings, over the vocabulary and their width.

    Of what the embedding module gives, so that a scale inside it counts.
    """
    embedding = model.hf.get_input_embeddings()
    total = square = count = 0.0
    for vectors in _embedded(embedding, model.device):
        vectors = vectors.double()
        total += float(vectors.sum())
        square += float(vectors.square().sum())
        count += vectors.numel()
    return float(np.sqrt(square / count - (total / count) ** 2))


def _embedded(embedding: nn.Module, device: torch.device) -> Iterator[Tensor]:
    size: int = embedding.weight.shape[0]  # type: ignore[index,assignment]
    for start in range(0, size, 4096):
        yield embedding(torch.arange(start, min(start + 4096, size), device=device))
