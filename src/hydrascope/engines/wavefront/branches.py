"""Read overrides in which one sublayer alone may react, from rows in which it is frozen.

A branch needs no row. It equals its base, in which the sublayer is frozen too, except for the sublayer's output; and
that output stands in the rows of its source before it is overwritten. In two sequential blocks, with one patch,
`attn.0`, `attn.0|mlp.0+attn.1` and `attn.0|mlp.0+attn.1+mlp.1` make three rows and a branch, in which mlp.1 reacts:

    row     override                   joins at  copies  overwritten
    0       (clean)
    1       attn.0                     attn.0    row 0   attn.0, by the patch
    2       attn.0|mlp.0+attn.1+mlp.1  mlp.0     row 1   mlp.0, attn.1 and mlp.1, by their clean activations

    branch  attn.0|mlp.0+attn.1        base 2, source 2, sublayer mlp.1

mlp.1 reads the same residual stream in row 2 and in the branch. So its output in row 2, read before it is overwritten,
is its output in the branch, and

    final residual stream of the branch = that of row 2 + mlp.1's output there − its clean output.

With `attn.0|attn.1+mlp.1` instead, in which mlp.0 reacts, the base is row 2 again, but row 2 joins only at mlp.0's
output. Up to there it is row 1, which is the source.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines.wavefront.schedule import Branch, Schedule
from hydrascope.models.language_model import LanguageModel, wider


@dataclass(frozen=True)
class ReactingRows:
    """A sublayer's activations at the final position in the rows of branches in which it reacts.

    Attributes:
        rows: the rows, counted from the first branch's.
        output: `[prompt, row, width]` the sublayer's output.
        values: `[prompt, row, columns]` the activations of its units; None if nothing reads them.
        projected: `[prompt, row, width]` the output of its projection, if a norm follows it.
    """

    rows: Tensor
    output: Tensor
    values: Tensor | None
    projected: Tensor | None


class Branches:
    """All branches of a schedule, in its order, each with one row a patch."""

    def __init__(self, model: LanguageModel, plan: Schedule, prompts: int, patches: int) -> None:
        self.model = model
        self.each = plan.branches
        self.patches = patches
        #: [branch row] the row of the base, and that of the source.
        self.base = self._group_rows(lambda branch: branch.base)
        self.source = self._group_rows(lambda branch: branch.source)
        #: [prompt, branch row, width] the change of what the sublayer adds to the residual stream.
        self.change = torch.zeros(prompts, len(self.base), model.width, dtype=wider(model.dtype), device=model.device)

    def _group_rows(self, group: Callable[[Branch], int]) -> Tensor:
        return self._from([1 + (group(branch) - 1) * self.patches for branch in self.each])

    def _from(self, starts: Sequence[int]) -> Tensor:
        """Return the rows of all patches that begin at each of `starts`."""
        rows = torch.tensor(starts, dtype=torch.long)[:, None] + torch.arange(self.patches)
        return rows.flatten().to(self.model.device)

    def _reacting(self, sublayer: Component, *, with_frozen_units: bool) -> list[int]:
        """List the branches in which `sublayer` reacts: with some of its units frozen, or with none."""
        return [
            number
            for number, branch in enumerate(self.each)
            if branch.sublayer == sublayer and bool(branch.frozen_units) == with_frozen_units
        ]

    def frozen_units(self, sublayer: Component) -> tuple[Component, ...]:
        """List the units of `sublayer` that are frozen in a branch in which it reacts."""
        return tuple(unit for branch in self.each if branch.sublayer == sublayer for unit in branch.frozen_units)

    def react(
        self, sublayer: Component, output: Tensor, values: Tensor | None, projected: Tensor | None
    ) -> list[ReactingRows]:
        """Find the activations of `sublayer` in its branches' rows, and keep its output's changes.

        Args:
            output, values, projected: as in `ReactingRows`, in the rows of all groups that have joined, before the
                output is overwritten.
        """
        found = []
        if branches := self._reacting(sublayer, with_frozen_units=False):
            whole = self._from([number * self.patches for number in branches])
            source = self.source[whole]
            parts = (None if each is None else each[:, source] for each in (values, projected))
            found.append(ReactingRows(whole, output[:, source], *parts))
        if branches := self._reacting(sublayer, with_frozen_units=True):
            assert values is not None
            partly = self._from([number * self.patches for number in branches])
            projection = self.model.projection(sublayer)
            is_frozen = self._is_frozen(branches, values.shape[-1])
            mixed = torch.where(is_frozen, values[:, :1], values[:, self.source[partly]])
            # Where nothing changed the output is the clean one, without other rounding.
            clean = (output if projected is None else projected)[:, :1]
            unchanged = (mixed == values[:, :1]).all(-1, keepdim=True)
            through = torch.where(unchanged, clean, projection.apply(mixed))
            found.append(
                ReactingRows(partly, projection.apply_norm(through), mixed, None if projected is None else through)
            )
        for each in found:
            change = each.output.to(self.change.dtype) - output[:, :1].to(self.change.dtype)
            self.change[:, each.rows] = change * self.model.residual_scale
        return found

    def _is_frozen(self, branches: Sequence[int], columns: int) -> Tensor:
        """Mark the frozen columns of a sublayer's site in the rows of branches, `[row, columns]`."""
        frozen = torch.zeros(len(branches), columns, dtype=torch.bool)
        for row, number in enumerate(branches):
            for unit in self.each[number].frozen_units:
                frozen[row, self.model.columns(unit)] = True
        return frozen.repeat_interleave(self.patches, 0).to(self.model.device)
