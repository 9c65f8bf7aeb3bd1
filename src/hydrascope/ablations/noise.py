"""Activations with Gaussian noise on the token embeddings (Eq. 37)."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from hydrascope.components.component import Component
from hydrascope.engines.clean.activations import CleanActivations, activations_at
from hydrascope.models.hooks import hooked, on_output
from hydrascope.models.language_model import LanguageModel


def noisy_values(
    clean: CleanActivations, prompts: Sequence[int], patches: int, scale: float, seed: int
) -> Callable[[Component], Float[Tensor, "prompt patch slot columns"]]:
    """Return a function from a component to its activations in noised copies of `prompts`.

    Activations are those at the ablated positions. The forward passes are made when the function is first called.

    Args:
        patches: the number of noised copies of each prompt.
        scale: the standard deviation of the noise, in units of the standard deviation of the token embeddings.
    """
    activations: dict[Component, Tensor] = {}

    def values(component: Component) -> Tensor:
        if not activations:
            noise_std = embedding_std(clean.model) * scale
            positions = clean.padded_positions(prompts)
            by_prompt = [
                _noisy(clean, index, np.repeat(at[None], patches, 0), noise_std, seed)
                for index, at in zip(prompts, positions, strict=True)
            ]
            activations.update({site: torch.stack([noisy[site] for noisy in by_prompt]) for site in clean.sites})
        return activations[component.site][..., clean.model.columns(component)]

    return values


def _noisy(
    clean: CleanActivations, index: int, positions: np.ndarray, noise_std: float, seed: int
) -> dict[Component, Float[Tensor, "patch slot columns"]]:
    """Return the activations at the ablated sites in noised copies of one prompt."""
    model, tokens = clean.model, clean.tokens[index]
    generator = np.random.default_rng([seed, index])
    embedding = model.hf.get_input_embeddings()
    shape = (len(positions), len(tokens), embedding.weight.shape[1])
    noise = torch.from_numpy(generator.standard_normal(shape)).to(model.device, model.dtype) * noise_std
    with hooked([on_output(embedding, lambda embedded: embedded + noise)]):
        return activations_at(model, [tokens] * len(positions), positions, clean.sites)


@torch.no_grad()
def embedding_std(model: LanguageModel) -> float:
    """Return the standard deviation of all numbers in the token embeddings.

    It is taken over the outputs of the embedding module, so that a scale inside it counts.
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
