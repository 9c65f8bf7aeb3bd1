"""Group prompts into batches, and pad them."""

from collections.abc import Sequence
from itertools import takewhile

import torch
from torch import Tensor

from hydrascope.models.language_model import LanguageModel
from hydrascope.utils.errors import HydrascopeError


def first_batch(
    model: LanguageModel, tokens: Sequence[Sequence[int]], order: Sequence[int], most: int
) -> Sequence[int]:
    """Return the first prompts of `order` that may share a batch, at most `most`.

    >>> first_batch(model, [[2, 4]] * 5, [4, 0, 2], 2)
    [4, 0]
    """
    keys = [model.batch_key(len(tokens[index])) for index in order[:most]]
    return order[: sum(1 for _ in takewhile(lambda key: key == keys[0], keys))]


def batchable(model: LanguageModel, tokens: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return groups of prompts that may share a batch, by their indices."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, prompt in enumerate(tokens):
        groups.setdefault(model.batch_key(len(prompt)), []).append(index)
    return list(groups.values())


def padded(model: LanguageModel, tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Pad prompts on the right, and return their last positions.

    Attention is causal: no position reads a later one, so the padding needs no mask.

        >>> padded(model, [[2, 14, 4], [2, 14]])
        (tensor([[ 2, 14,  4],
                [ 2, 14,  0]]), tensor([2, 1]))

    Returns:
        The token ids, `[prompt, position]`, and the last positions, `[prompt]`.

    Raises:
        HydrascopeError: the prompts may not share a batch (`batchable`).
    """
    if len({model.batch_key(len(prompt)) for prompt in tokens}) > 1:
        lengths = sorted(map(len, tokens))
        raise HydrascopeError(
            f"{model.name} computes prompts of {lengths[0]:,} and {lengths[-1]:,} tokens differently: they can't share "
            "a batch; measure them apart (batch_size=1)"
        )
    longest = max(map(len, tokens))
    ids = torch.zeros(len(tokens), longest, dtype=torch.long)
    for row, prompt in zip(ids, tokens, strict=True):
        row[: len(prompt)] = torch.as_tensor(prompt)
    last = torch.tensor([len(prompt) - 1 for prompt in tokens])
    return ids.to(model.device), last.to(model.device)
