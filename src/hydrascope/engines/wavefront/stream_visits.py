"""Visit the residual streams of all rows of a sweep, block by block."""

import torch
from torch import Tensor

from hydrascope.engines.interface import Request, VisitStreams
from hydrascope.engines.wavefront.engine import run_sweep
from hydrascope.engines.wavefront.prepared import Prepared
from hydrascope.engines.wavefront.row_streams import Points, RowStreams
from hydrascope.engines.wavefront.schedule import Schedule
from hydrascope.models.language_model import LanguageModel


@torch.no_grad()
def visit_streams(model: LanguageModel, request: Request, visit: VisitStreams) -> None:
    """Call `visit` for each block; see `Engine.visit_streams`."""
    prepared = Prepared.of(model, request, ())
    points = Points.at_end(model, request.tokens)
    run_sweep(model, request, prepared, lambda: _VisitedRows(model, request, prepared.plan, points, visit))


class _VisitedRows(RowStreams):
    """Rows whose streams are handed on as they enter each block."""

    def __init__(
        self, model: LanguageModel, request: Request, plan: Schedule, points: Points, visit: VisitStreams
    ) -> None:
        super().__init__(model, request, plan, points)
        self.visit = visit

    def read_stream(self, block: int, residual: Tensor) -> None:
        """Hand on the streams that enter a block, `[prompt, row, width]`."""
        if block:
            self._hand_on(block, residual)

    def finish(self, residual: Tensor) -> None:
        """Hand on the final streams."""
        super().finish(residual)
        assert self.final is not None
        self._hand_on(len(self.model.blocks), self.final)

    def _hand_on(self, block: int, streams: Tensor) -> None:
        rows = streams[:, self._rows(streams.shape[1])].unflatten(1, (-1, self.request.patches))
        self.visit(block, streams[:, 0], rows)

    def _rows(self, joined: int) -> Tensor:
        """Return the row of each patch of each override, or of the row that it will leave."""
        patches = torch.arange(self.request.patches, device=self.model.device)
        rows = []
        for group in self.plan.index:
            while self.first(group) >= joined:
                group = self.plan.groups[group].parent
            rows.append(patches + self.first(group) if group else 0 * patches)
        return torch.cat(rows)
