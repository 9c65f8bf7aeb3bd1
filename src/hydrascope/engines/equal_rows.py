"""Find the rows that equal a sweep's clean row to the bit, and give them its numbers.

One row of a product, or the last numbers of a vector, may be computed by other instructions than the rest. So equal
rows don't always give equal numbers. Where an effect of exactly 0 matters, the clean row's numbers are copied.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

#: The columns that are compared first: nearly every row that differs at all differs there.
_FEW = 8


def equal_to_first(rows: Float[Tensor, "prompt row *suffix columns"]) -> Bool[Tensor, "prompt row *suffix"]:
    """Return whether each row equals row 0 of its prompt, token by token.

    >>> equal_to_first(torch.tensor([[[1.0, 2.0], [1.0, 2.0], [1.0, 3.0]]]))
    tensor([[ True,  True, False]])
    """
    equal = (rows[..., :_FEW] == rows[:, :1, ..., :_FEW]).all(-1)
    prompts, which, *tokens = equal.nonzero(as_tuple=True)
    alike = (rows[prompts, which, *tokens] == rows[prompts, torch.zeros_like(which), *tokens]).all(-1)
    equal[prompts, which, *tokens] = alike
    return equal


def write_clean(
    rows: Float[Tensor, "prompt row *rest"],
    equal: Bool[Tensor, "prompt row *suffix"],
    clean: Float[Tensor, "prompt 1 *rest"],
) -> None:
    """Overwrite the rows that are marked as `equal` by the clean one, in place."""
    prompts, which, *tokens = equal.nonzero(as_tuple=True)
    rows[prompts, which, *tokens] = clean[prompts, torch.zeros_like(which), *tokens]
