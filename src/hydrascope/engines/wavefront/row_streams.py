"""Keep the final residual streams of all rows of a sweep.

The engine's hooks call `RowStreams` at every sublayer. Metrics of whole answers need no more than that. `Recorder`
builds on it, reads components, and lists the calls in their order.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines.attention import Attend, Prefix
from hydrascope.engines.fused_attention import fused_row_attention
from hydrascope.engines.interface import Request
from hydrascope.engines.metrics import answer_log_prob
from hydrascope.engines.override_change import units_site
from hydrascope.engines.wavefront.branches import Branches, ReactingRows
from hydrascope.engines.wavefront.schedule import Schedule
from hydrascope.models.language_model import LanguageModel


@dataclass(frozen=True)
class TermWrite:
    """A term of a dictionary that is overwritten in some rows.

    Attributes:
        component: the term.
        rows: the rows.
        before, after: `[point, row, columns]` its activations.
    """

    component: Component
    rows: slice
    before: Tensor
    after: Tensor


@dataclass(frozen=True)
class Points:
    """The points at which rows are read: the last positions of prompts, one or several of each.

    Attributes:
        prompts: `[point]` the prompt.
        positions: `[point]` the position, counted from the prompt's start.
    """

    prompts: Int[Tensor, "point"]
    positions: Int[Tensor, "point"]

    @classmethod
    def at_end(
        cls, model: LanguageModel, tokens: Sequence[Sequence[int]], counts: Sequence[int] | None = None
    ) -> "Points":
        """Return the last `counts` positions of each prompt; the last one by default."""
        each = [
            (prompt, position)
            for prompt, (ids, count) in enumerate(zip(tokens, counts or [1] * len(tokens), strict=True))
            for position in range(len(ids) - count, len(ids))
        ]
        prompts, positions = torch.tensor(each).to(model.device).T
        return cls(prompts, positions)


def is_clean(rows: Tensor) -> Tensor:
    """Return whether each row of `[prompt, row, columns]` equals the clean one to the bit."""
    return (rows == rows[:, :1]).all(-1)


class RowStreams:
    """The final residual stream of every row at some points, in the schedule's order."""

    #: Whether the changes by overrides are of use to `add_change`.
    needs_changes: ClassVar[bool] = False

    def __init__(self, model: LanguageModel, request: Request, plan: Schedule, points: Points) -> None:
        self.model = model
        self.request = request
        self.plan = plan
        self.points = points
        self.branches = Branches(model, plan, len(points.prompts), request.patches)
        #: [point, row, width], once the sweep has ended.
        self.final: Tensor | None = None
        #: The activations of units of the sublayer that computes now, and the output of its projection.
        self._values: Tensor | None = None
        self._projection_output: Tensor | None = None

    def first(self, group: int) -> int:
        """Return the first row of a group or branch, which is the number of rows before it."""
        return 0 if group == 0 else 1 + (group - 1) * self.request.patches

    def parents(self, groups: Sequence[int]) -> Tensor | None:
        """Return the row that each row of some groups copies; None if all copy the clean row."""
        above = [self.plan.groups[group].parent for group in groups]
        return self.rows_of(above) if any(above) else None

    def rows_of(self, groups: Sequence[int]) -> Int[Tensor, "row"]:
        """Return the row of each patch of some groups or branches; row 0 for group 0."""
        first = 1 + (torch.tensor(groups, dtype=torch.long) - 1) * self.request.patches
        rows = first[:, None] + torch.arange(self.request.patches)
        return rows.clamp_min(0).flatten().to(self.model.device)

    def override_rows(self) -> Int[Tensor, "row"]:
        """Return the row of each patch of each override, `[override · patch]`."""
        return self.rows_of(self.plan.index)

    def site(self, sublayer: Component) -> Component | None:
        """Return the site of the units of `sublayer`, if any of them is overridden or read.

        Terms of dictionaries at that site, or behind it, count as well.
        """
        units = [*self.plan.events[sublayer].writes, *self.branches.frozen_units(sublayer)]
        return units_site(sublayer) if any(unit.entry == "units" for unit in units) else None

    def reads_terms(self, home: Component) -> bool:
        """Whether terms of the dictionary of `home` are read."""
        return False

    def read_terms(
        self,
        home: Component,
        x: Tensor,
        standing: Tensor,
        writes: Sequence[TermWrite],
        joined: int,
        starting: Sequence[int],
    ) -> None:
        """Take what stands at a dictionary's site, and the terms that are overwritten there.

        Args:
            home: the sublayer of the dictionary, or `stream.L`.
            x: `[point, row, input]` the vector that it reads.
            standing: `[point, row, output]` the vector that stands at the site, before terms are overwritten.
            writes: the overwritten terms, in rows of these.
            joined: the number of rows that had joined before; those of the groups `starting` follow.
            starting: the groups that start here.
        """

    def add_terms(self, home: Component, group: int, values: Mapping[Component, Tensor]) -> None:
        """Take the values that a group's overrides of a sublayer's units and terms write.

        Args:
            home: the sublayer, or `stream.L`.
            group: the group.
            values: `[point, patch, columns]` at the final position.
        """

    def rewrite_stream(self, block: int, group: int, change: Tensor, residual: Tensor) -> None:
        """Take the change of the stream that enters a block, and its new value."""

    def start_stage(self, stage: int) -> None:
        """Take notice that groups start at a stage."""

    def attention(self, prefix: Prefix) -> Attend:
        """Return the attention of rows that share `prefix`."""
        return fused_row_attention(prefix)

    def read_stream(self, block: int, residual: Tensor) -> None:
        """Take the residual streams that enter a block, `[point, row, width]`."""

    def keep_units(self, sublayer: Component, values: Tensor) -> None:
        """Keep the activations of all units, `[point, row, columns]`, until `sublayer` is read."""
        self._values = values if self.branches.frozen_units(sublayer) else None

    def keep_projected(self, sublayer: Component, output: Tensor) -> None:
        """Keep the projection's output, `[point, row, width]`, until `sublayer` is read."""
        self._projection_output = output

    def add_change(self, component: Component, groups: Sequence[int], change: Tensor) -> None:
        """Take a component's change by its override in some groups, `[point, patch, columns]`."""

    def read_reactions(self, sublayer: Component, output: Tensor) -> list[ReactingRows]:
        """Find the activations of `sublayer` in the rows of branches.

        Args:
            sublayer: the sublayer.
            output: `[point, row, width]` its output, before it is overwritten.
        """
        return self.branches.react(sublayer, output, self._values, self._projection_output)

    def read_sublayer(self, sublayer: Component, output: Tensor, starting: Tensor) -> None:
        """Take the overwritten output of a sublayer, in the rows before and those that start."""
        self._values = self._projection_output = None

    def finish(self, residual: Tensor) -> None:
        """Keep the final residual streams, `[point, row, width]`, and add those of branches.

        A branch is its base except for one sublayer's output.
        """
        branches = self.branches
        self.final = residual
        if branches.each:
            added = branches.change.to(residual.dtype)
            self.final = torch.cat([residual, residual[:, branches.base] + added], 1)

    def answer_log_probs(self) -> tuple[Tensor, Tensor]:
        """Return log p of each prompt's answer; the points predict its tokens.

        Returns:
            `[prompt]` in the clean row, and `[prompt, override, patch]`.
        """
        assert self.final is not None
        answers = self.request.answers
        finals = self.final.split([len(answer) for answer in answers])
        values = torch.stack(
            [
                answer_log_prob(self.model, final.transpose(0, 1), answer)
                for final, answer in zip(finals, answers, strict=True)
            ]
        )
        unchanged = torch.stack([is_clean(final).all(0) for final in finals])
        values = torch.where(unchanged, values[:, :1], values)
        return values[:, 0], values[:, self.override_rows()].unflatten(1, (-1, self.request.patches))
