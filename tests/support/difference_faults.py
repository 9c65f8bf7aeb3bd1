"""Faults in products of differences, each of a kind that makes wrong numbers."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hydrascope.engines.kernels import differences
from hydrascope.engines.kernels.differences import _Changes, _Differences, _Shape

Plant = Callable[[pytest.MonkeyPatch], None]


def _subtract(patch: pytest.MonkeyPatch, reference: Callable[[Tensor], Tensor]) -> None:
    """Let x₀ of the difference be another than that of the first product."""

    def of(self: _Changes, hidden: Tensor, shape: _Shape) -> Tensor:
        rows = shape.rows(hidden)
        return (rows[:, 1:] - reference(rows[:, :1])).bfloat16()

    patch.setattr(_Changes, "of", of)


def take_the_clean_row_of_another_prompt(patch: pytest.MonkeyPatch) -> None:
    """x₀ is that of the prompt before."""
    _subtract(patch, lambda clean: clean.roll(1, 0))


def take_the_clean_row_of_another_position(patch: pytest.MonkeyPatch) -> None:
    """x₀ is that of the token before, in the suffix."""
    _subtract(patch, lambda clean: clean.roll(1, 2))


def take_both_of_another_prompt(patch: pytest.MonkeyPatch) -> None:
    """x₀ is that of the prompt before in both products: the sum is right, and rounded by a share of the whole."""
    call = _Differences.__call__

    def other(self: _Differences, hidden: Tensor) -> Tensor:
        rows = self.shape.rows(hidden)
        # Each prompt's rows after the clean row of the prompt before, and its own clean row last.
        moved = torch.cat([rows[:, :1].roll(1, 0), rows[:, 1:], rows[:, :1]], 1)
        out = call(self, moved.flatten(1, 2)).unflatten(1, (-1, self.shape.length))
        return torch.cat([out[:, -1:], out[:, 1:-1]], 1).reshape(*hidden.shape[:-1], out.shape[-1])

    patch.setattr(_Differences, "__call__", other)


def add_the_difference_twice_rounded(patch: pytest.MonkeyPatch) -> None:
    """The whole row is multiplied in bfloat16, as in a model of that dtype."""

    def whole(self: _Differences, hidden: Tensor) -> Tensor:
        rows = self.shape.rows(hidden)
        bias = self.of_any_rows(torch.zeros_like(rows[:, :1]))
        out = differences._multiply(rows.bfloat16(), self.weight).float() + bias
        return out.view(*hidden.shape[:-1], out.shape[-1])

    patch.setattr(_Differences, "__call__", whole)


#: Each with a case and a place at which it shows.
FAULTS: list[tuple[Plant, str, str]] = [
    (take_the_clean_row_of_another_prompt, "llama", "last"),
    (take_the_clean_row_of_another_position, "llama", "span"),
    (take_both_of_another_prompt, "llama", "last"),
    (add_the_difference_twice_rounded, "gpt2", "last"),
]
