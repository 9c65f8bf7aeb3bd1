"""The rows of one sweep, and the positions at which they are overridden and read."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines.interface import Request
from hydrascope.engines.wavefront.prepared import Prepared
from hydrascope.engines.wavefront.row_streams import RowStreams
from hydrascope.engines.wavefront.schedule import SublayerEvents
from hydrascope.models.hooks import by_prompt
from hydrascope.models.language_model import LanguageModel


class SweepRows:
    """The rows of one sweep, on their way through the blocks.

    Rows stand along dimension 1 of `[prompt, row, suffix, width]`: first the clean row, then every group of
    the schedule with a row for each patch, in the order in which they join.
    """

    def __init__(
        self,
        model: LanguageModel,
        request: Request,
        prepared: Prepared,
        record: RowStreams,
        watch: Sequence[Component],
    ) -> None:
        prefix, points = prepared.common.prefix, record.points
        self.model = model
        self.request = request
        #: `[prompt, patch, slot, columns]` of each ablated component.
        self.values = prepared.values
        self.plan = prepared.plan
        self.record = record
        #: [prompt, slot] and [point], counted from the start of the suffix.
        self.positions = request.positions.to(model.device) - prefix.start[:, None]
        self.read_at = points.positions - prefix.start[points.prompts]
        #: [point] the prompt of each point.
        self.read_of = points.prompts
        self.length = prefix.length
        #: Sites whose activations are kept, and these.
        self.watch = watch
        self.watched: dict[Component, Tensor] = {}
        self.prompts = torch.arange(len(request.tokens), device=model.device)
        #: [point, slot] where a position that is read is overridden; at most one slot a point counts.
        at_last = self.positions[self.read_of] == self.read_at[:, None]
        self.at_last = at_last & (at_last.cumsum(1) == 1)
        #: The number of groups that have joined, the clean row among them.
        self.joined = 1
        self.clean = prepared.common.clean
        #: `[prompt, 1, suffix, columns]` the clean activations of frozen terms.
        self.clean_terms: dict[Component, Tensor] = {}
        #: `[prompt, row, suffix, width]` the input of an MLP whose transcoder is overridden or read.
        self.received = torch.empty(0)
        #: Changes of their parents' residual streams in the rows that join at the next block.
        self.pending: Tensor | None = None

    def _rows(self, hidden: Tensor) -> Tensor:
        rows: Tensor = by_prompt(hidden, len(self.prompts)).unflatten(1, (-1, self.length))
        return rows

    def _final(self, rows: Tensor) -> Tensor:
        """Return each row where it is read, `[point, row, width]`, on the model's device."""
        if self.length == 1:
            return rows[:, :, 0].to(self.model.device)
        return rows[self.read_of.to(rows.device), :, self.read_at.to(rows.device)].to(self.model.device)

    def _row_count(self) -> int:
        """Return the number of rows that have joined."""
        return self.record.first(self.joined)

    def _events(self, sublayer: Component) -> SublayerEvents:
        return self.plan.events[sublayer]

    def _copies(self, rows: Tensor, groups: Sequence[int]) -> Tensor:
        """Return the rows of the parents of `groups`."""
        parents = self.record.parents(groups)
        if parents is None:
            return rows[:, :1].expand(-1, len(groups) * self.request.patches, *rows.shape[2:])
        return rows[:, parents.to(rows.device)]

    def _index(self, rows: Tensor, which: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the index of some rows at all ablated positions."""
        each = self.prompts[:, None, None], which, self.positions[:, None]
        return tuple(place.to(rows.device) for place in each)  # type: ignore[return-value]

    def _first_new_rows(self, starting: Sequence[int]) -> dict[int, int]:
        """Return the first row of each group that joins now."""
        count, patches = self._row_count(), self.request.patches
        return {group: count + place * patches for place, group in enumerate(starting)}
