"""Runs that are read as branches: what one layer would write, in rows in which it is frozen.

No row is made for such a run (`schedule`). At its layer, the rows of its source show what the layer writes in it,
before that is overwritten; at the end it is its base, but for that.
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
    """What stands at a layer in its branches' rows, at the final position.

    Attributes:
        rows: which of the branches' rows they are.
        output: `[prompt, row, width]` what the layer writes.
        values: `[prompt, row, columns]` what its units hand on; None where nobody asks.
        projected: `[prompt, row, width]` what its projection gives, where a norm follows it.
    """

    rows: Tensor
    output: Tensor
    values: Tensor | None
    projected: Tensor | None


class Branches:
    """The rows of all branches, in the schedule's order, one a patch: where they are read, and what differs in them."""

    def __init__(self, model: LanguageModel, plan: Schedule, prompts: int, patches: int) -> None:
        self.model = model
        self.each = plan.branches
        self.patches = patches
        #: The row that each is at the end but for its layer, and the one in which that layer shows.
        self.base = self._group_rows(lambda branch: branch.base)
        self.source = self._group_rows(lambda branch: branch.source)
        #: [prompt, row, width] what the layer adds to the residual stream, other than in the clean run.
        self.change = torch.zeros(prompts, len(self.base), model.width, dtype=wider(model.dtype), device=model.device)

    def _group_rows(self, group: Callable[[Branch], int]) -> Tensor:
        return self._from([1 + (group(branch) - 1) * self.patches for branch in self.each])

    def _from(self, starts: Sequence[int]) -> Tensor:
        """The rows of as many patches each from `starts` on."""
        rows = torch.tensor(starts, dtype=torch.long)[:, None] + torch.arange(self.patches)
        return rows.flatten().to(self.model.device)

    def _reacting(self, sublayer: Component, *, held: bool) -> list[int]:
        """The branches in which `layer` reacts, all of it or with some of its units held."""
        return [
            n for n, branch in enumerate(self.each) if branch.sublayer == sublayer and bool(branch.frozen_units) == held
        ]

    def frozen_units(self, sublayer: Component) -> tuple[Component, ...]:
        """The units of `layer` that are frozen somewhere where it reacts."""
        return tuple(unit for branch in self.each if branch.sublayer == sublayer for unit in branch.frozen_units)

    def react(
        self, sublayer: Component, output: Tensor, values: Tensor | None, projected: Tensor | None
    ) -> list[ReactingRows]:
        """What stands in the rows that react at `layer`, from what stands in those of all groups; kept as change."""
        found = []
        if branches := self._reacting(sublayer, held=False):
            whole = self._from([number * self.patches for number in branches])
            source = self.source[whole]
            parts = (None if each is None else each[:, source] for each in (values, projected))
            found.append(ReactingRows(whole, output[:, source], *parts))
        if branches := self._reacting(sublayer, held=True):
            assert values is not None
            partly = self._from([number * self.patches for number in branches])
            projection = self.model.projection(sublayer)
            is_held = self._is_frozen(branches, values.shape[-1])
            mixed = torch.where(is_held, values[:, :1], values[:, self.source[partly]])
            through = projection.apply(mixed)
            found.append(
                ReactingRows(partly, projection.apply_norm(through), mixed, None if projected is None else through)
            )
        for each in found:
            change = each.output.to(self.change.dtype) - output[:, :1].to(self.change.dtype)
            self.change[:, each.rows] = change * self.model.residual_scale
        return found

    def _is_frozen(self, branches: Sequence[int], columns: int) -> Tensor:
        """`[row, columns]` which columns of their layer's site are frozen in the rows of some branches."""
        held = torch.zeros(len(branches), columns, dtype=torch.bool)
        for place, number in enumerate(branches):
            for unit in self.each[number].frozen_units:
                held[place, self.model.columns(unit)] = True
        return held.repeat_interleave(self.patches, 0).to(self.model.device)
