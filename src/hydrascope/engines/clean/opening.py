"""Run the tokens with which all prompts of a batch begin once, such as few-shot templates.

Attention is causal, so these tokens, the *opening*, have the same activations in every prompt. They are run as one
prompt; then the rest of each prompt is run and sees their keys and values.
"""

from collections.abc import Collection, Sequence
from itertools import takewhile

import torch
from jaxtyping import Int
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines.attention import Prefix, attending, causal_attention
from hydrascope.engines.clean.clean_pass import CleanPass, compute_one_batch_at
from hydrascope.models.language_model import LanguageModel

#: The fewest tokens that an opening saves. One more pass, which reads all weights, takes as long as about 30 tokens.
LEAST = 64


def opening_length(model: LanguageModel, tokens: Sequence[Sequence[int]], suffix: int) -> int:
    """Return the number of tokens that are run once for all prompts; 0 where it doesn't pay.

    It depends on the prompts of the batch alone, so that a batch always gives the same bits.

        >>> opening_length(model, [[*range(80), 7, 9], [*range(80), 8]], suffix=1)
        80

    Args:
        model: the model.
        tokens: the token ids of each prompt.
        suffix: the number of last positions that rows compute. None of these is in the opening.
    """
    # Of all prompts the first and the last in order differ earliest.
    ordered = sorted(map(list, tokens))
    equal = takewhile(lambda pair: pair[0] == pair[1], zip(ordered[0], ordered[-1], strict=False))
    lengths = [len(prompt) for prompt in tokens]
    length = min(sum(1 for _ in equal), min(lengths) - suffix)
    # Tables for rotary embeddings that depend on a prompt's length would be others in the opening.
    same_tables = model.batch_key(1) == model.batch_key(max(lengths))
    return length if length * (len(tokens) - 1) >= LEAST and same_tables else 0


def compute_batch_with_prefix(
    model: LanguageModel,
    tokens: Sequence[Sequence[int]],
    prefix: Prefix,
    prompts: Int[Tensor, "position"],
    positions: Int[Tensor, "position"],
    sites: Collection[Component],
) -> CleanPass:
    """Run prompts that may share a batch, and fill `prefix` for their rows.

    Args:
        model: the model.
        tokens: the token ids of each prompt.
        prefix: an empty prefix.
        prompts: the prompts of which activations are taken.
        positions: their positions, anywhere in the prompts.
        sites: the sites of the activations.

    Raises:
        HydrascopeError: the prompts may not share a batch.
    """
    length = opening_length(model, tokens, prefix.length)
    if not length:
        with attending(model, causal_attention(prefix)):
            return compute_one_batch_at(model, tokens, prompts, positions, sites)
    opening = Prefix(torch.tensor([length], device=model.device), 0, length)
    inside = positions < length
    with attending(model, causal_attention(opening)):
        only = torch.zeros_like(prompts[inside])
        once = compute_one_batch_at(model, [tokens[0][:length]], only, positions[inside], sites)
    with attending(model, causal_attention(prefix, opening)):
        rest = [prompt[length:] for prompt in tokens]
        each = compute_one_batch_at(model, rest, prompts[~inside], positions[~inside] - length, sites, length)
    order = torch.cat([inside.nonzero()[:, 0], (~inside).nonzero()[:, 0]])
    return CleanPass.concatenate([once, each]).in_order(order.argsort())
