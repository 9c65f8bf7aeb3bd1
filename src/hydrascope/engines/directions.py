"""Readouts of vectors of the user's own: one direction, or the rows of a matrix."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hydrascope.engines.readouts import FINAL, Linear, Tokens, through_norm
from hydrascope.models.language_model import LanguageModel, wider
from hydrascope.utils.errors import HydrascopeError


@dataclass(frozen=True, eq=False)
class Direction:
    """Any vector: a probe's weights, a feature of a sparse autoencoder, a difference of means.

        >>> probe = np.arange(model.width)
        >>> results = hs.sweep(model, prompts, hs.Zero(), readouts=[hs.Direction(probe, before=4)])

    Attributes:
        vector: `[width]`, or `[prompt, width]` with a vector for each prompt of the set.
        before: the block to read before, without a norm; by default, the final residual stream is read through the
            final norm.
        name: the label in results.
    """

    vector: Any
    before: int | None = None
    name: str = "direction"

    needs: ClassVar[tuple[str, ...]] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """The label in results: its name."""
        return (self.name,)

    @cached_property
    def numbers(self) -> Tensor:
        """The vector in float64 on the CPU, without gradients."""
        return _numbers(self.vector, f"the direction {self.name!r} is no vector of numbers")

    def linear(self, model: LanguageModel, tokens: Tokens, prompts: Sequence[int]) -> list[Linear]:
        """Return one readout; see `Readout.linear`.

        Raises:
            HydrascopeError: the vector has a wrong shape or isn't finite, or there is no such block.
        """
        count = len(tokens.target)
        vector = self.numbers.to(wider(model.dtype))
        if vector.shape not in {(model.width,), (count, model.width)}:
            raise HydrascopeError(
                f"the direction {self.name!r} has the shape {list(vector.shape)}: give {model.width} numbers, or a row "
                f"of as many for each of the {count} prompts; several directions are hs.Directions"
            )
        _require_readable(model, vector, self.before, f"the direction {self.name!r} holds")
        rows = vector.expand(count, -1)[list(prompts)].to(model.device)
        if self.before is not None:
            return [Linear(rows, rows.new_zeros(len(rows)), self.before)]
        return [Linear(*through_norm(model, rows))]


@dataclass(frozen=True, eq=False)
class Directions:
    """The rows of a matrix, each a readout: the features of a decoder, a set of probes.

    They are read together, by one matrix product, and lie along the dimension `readout` of the result.

        >>> probes = np.eye(model.width)[:3]
        >>> results = hs.sweep(model, prompts, hs.Zero(), readouts=hs.Directions(probes, before=4, name="probe"))
        >>> results["readout"].values.tolist()
        ['probe.0', 'probe.1', 'probe.2']

    Attributes:
        matrix: `[row, width]` the vectors, the same for all prompts.
        before: the block to read before, without a norm; by default, the final residual stream is read through the
            final norm.
        name: the labels in results are this name and the number of the row.
        names: the labels themselves, one for each row; by default those from `name`.
    """

    matrix: Any
    before: int | None = None
    name: str = "direction"
    names: Sequence[str] | None = None

    needs: ClassVar[tuple[str, ...]] = ()

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels in results: `names`, or `direction.0`, `direction.1` and so on.

        Raises:
            HydrascopeError: the matrix is none, or has another number of rows than there are names.
        """
        count = len(self.numbers)
        if self.names is None:
            return tuple(f"{self.name}.{row}" for row in range(count))
        if isinstance(self.names, str) or len(self.names) != count:
            raise HydrascopeError(f"{count} directions need {count} names, as a list: {len(self.names)} are given")
        return tuple(map(str, self.names))

    @cached_property
    def numbers(self) -> Float[Tensor, "row width"]:
        """The matrix in float64 on the CPU, without gradients.

        Raises:
            HydrascopeError: it is no matrix of numbers, or has no rows.
        """
        numbers = _numbers(self.matrix, f"the directions {self.name!r} are no matrix of numbers")
        if numbers.ndim != 2 or not len(numbers):
            raise HydrascopeError(
                f"the directions {self.name!r} have the shape {list(numbers.shape)}: give a matrix with a row for "
                "each, or hs.Direction for one vector"
            )
        return numbers

    def linear(self, model: LanguageModel, tokens: Tokens, prompts: Sequence[int]) -> list[Linear]:
        """Return a readout for each row; see `Readout.linear`.

        Raises:
            HydrascopeError: the rows are of another width than the model's or aren't finite, or there is no such block.
        """
        matrix, width = self.numbers.to(wider(model.dtype)), model.width
        if matrix.shape[1] != width:
            turned = " (give its transpose)" if matrix.shape[0] == width else ""
            raise HydrascopeError(
                f"the directions {self.name!r} have the shape {list(matrix.shape)}, and the residual stream of "
                f"{model.name} {width} numbers: give rows of {width} numbers{turned}"
            )
        _require_readable(model, matrix, self.before, f"the directions {self.name!r} hold")
        matrix, before = matrix.to(model.device), FINAL if self.before is None else self.before
        constants = matrix.new_zeros(len(matrix))
        if self.before is None:
            matrix, constants = through_norm(model, matrix)
        count = len(prompts)
        return [
            Linear(vector.expand(count, -1), constant.expand(count), before, shared=True)
            for vector, constant in zip(matrix, constants, strict=True)
        ]


def _numbers(given: Any, wrong: str) -> Tensor:
    if isinstance(given, Tensor):
        return given.detach().to("cpu", torch.float64)
    try:
        return torch.from_numpy(np.array(given, np.float64))
    except (TypeError, ValueError) as error:
        raise HydrascopeError(f"{wrong}: {error}") from error


def _require_readable(model: LanguageModel, vectors: Tensor, before: int | None, holds: str) -> None:
    depth = len(model.blocks)
    if not vectors.isfinite().all():
        raise HydrascopeError(f"{holds} a number that is not finite: give finite numbers")
    if before is not None and not (isinstance(before, int) and 0 <= before < depth):
        raise HydrascopeError(f"{model.name} has no block {before!r} to read before: it has 0 to {depth - 1}")
