"""Runs of a prompt with Gaussian noise on its token embeddings (Eq. 37)."""

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
    """What components write in noised copies of `prompts`, where they are ablated.

    The runs are made when the first component is asked for.

    Args:
        scale: the noise's standard deviation, in units of the token embeddings' standard deviation.
    """
    kept: dict[Component, Tensor] = {}

    def values(component: Component) -> Tensor:
        if not kept:
            spread = embedding_std(clean.model) * scale
            positions = clean.padded_positions(prompts)
            runs = [
                _noisy(clean, index, np.repeat(at[None], patches, 0), spread, seed)
                for index, at in zip(prompts, positions, strict=True)
            ]
            kept.update({site: torch.stack([run[site] for run in runs]) for site in clean.sites})
        return kept[component.site][..., clean.model.columns(component)]

    return values


def _noisy(
    clean: CleanActivations, index: int, positions: np.ndarray, spread: float, seed: int
) -> dict[Component, Float[Tensor, "patch slot columns"]]:
    """What stands at the ablated sites in noised copies of one prompt."""
    model, tokens = clean.model, clean.tokens[index]
    generator = np.random.default_rng([seed, index])
    embedding = model.hf.get_input_embeddings()
    shape = (len(positions), len(tokens), embedding.weight.shape[1])
    noise = torch.from_numpy(generator.standard_normal(shape)).to(model.device, model.dtype) * spread
    with hooked([on_output(embedding, lambda embedded: embedded + noise)]):
        return activations_at(model, [tokens] * len(positions), positions, clean.sites)


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
