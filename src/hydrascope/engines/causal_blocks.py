"""Attend causally block by block.

PyTorch's kernel for CPUs skips keys that no query sees in steps of 512, so that it skips none in prompts of up to 512
tokens. Blocks of queries that are given only the keys they see save up to half of the products.
"""

from collections.abc import Callable

import torch
from torch import Tensor

#: The number of queries in a block. Smaller ones skip more keys, and multiply smaller matrices.
_QUERIES = 100
#: The most positions that are cut into blocks; beyond, the kernel's own steps save as much.
_LONGEST = 1024

#: Attends from queries to keys and values `[prompt, head, position, head width]`, with a mask that is added to the
#: scores; causally if it is None. Returns the output and anything else `[prompt, head, query, …]`.
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, ...]]


def attend_by_blocks(query: Tensor, key: Tensor, value: Tensor, attend: Attend) -> tuple[Tensor, ...]:
    """Let each position see itself and all before.

        >>> attend_by_blocks(query, key, value, attend)                                        # doctest: +SKIP

    Args:
        query, key, value: `[prompt, head, position, head width]`, as many positions each.
        attend: attends from one block of queries.
    """
    length = query.shape[2]
    count = max(length // _QUERIES, 1) if length <= _LONGEST else 1
    if count == 1:
        return attend(query, key, value, None)
    ends = [(number + 1) * length // count for number in range(count)]
    parts = [
        attend(query[:, :, start:end], key[:, :, :end], value[:, :, :end], _mask(query, start, end))
        for start, end in zip([0, *ends], ends, strict=False)
    ]
    # The kernel stores positions before heads: so does the whole.
    return tuple(
        torch.cat([each.transpose(1, 2) for each in kind], 1).transpose(1, 2) for kind in zip(*parts, strict=True)
    )


def _mask(query: Tensor, start: int, end: int) -> Tensor | None:
    """Return the mask of queries from `start` to `end`; None for the first ones."""
    if start == 0:
        return None
    return query.new_full((1, 1, end - start, end), -torch.inf).triu(1 + start)
