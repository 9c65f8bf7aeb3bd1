"""Noise of the size of a quantiser's rounding."""

import copy

import torch
from torch import Tensor

import hydrascope as hs
from hydrascope.models.language_model import LanguageModel

#: The weights of a row that are taken together; formats scale 16 or 32 of them alike.
_BLOCK = 16


def with_noise(model: LanguageModel, seed: int) -> LanguageModel:
    """Return a copy of a model with noise on all its matrices, as if they had been rounded once more.

    Args:
        model: a model whose weights were dequantised.
        seed: the seed of the noise.
    """
    noised = copy.deepcopy(model.hf)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in noised.parameters():
            if weight.ndim == 2 and weight.shape[1] % _BLOCK == 0:
                weight += (torch.rand(weight.shape, generator=generator) - 0.5).to(weight) * steps(weight)
    return hs.load_model(noised, model.tokenizer)


def steps(weight: Tensor) -> Tensor:
    """Return the step of the quantiser at each weight of a matrix: the smallest gap in a block of a row.

    >>> steps(torch.tensor([[0.0, 0.5, 0.5, 2.0] * 4]))[0, :2]
    tensor([0.5000, 0.5000])
    """
    blocks = weight.reshape(*weight.shape[:-1], -1, _BLOCK)
    gaps = blocks.sort(-1).values.diff(dim=-1)
    span = blocks.amax(-1, keepdim=True) - blocks.amin(-1, keepdim=True)
    # Equal weights may differ by rounding; 4 to 8 bits are never finer than a thousandth of the span.
    smallest = gaps.masked_fill(gaps < 1e-3 * span, torch.inf).amin(-1, keepdim=True)
    smallest = smallest.where(smallest.isfinite(), 0)
    return smallest.expand_as(blocks).reshape(weight.shape)
