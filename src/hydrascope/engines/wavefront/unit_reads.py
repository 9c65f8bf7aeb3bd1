"""Read heads and neurons from their activations, without projecting them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines.interface import Request
from hydrascope.models.language_model import LanguageModel
from hydrascope.models.projection import Projection


class UnitReads:
    """Read some heads or neurons of one sublayer by one small product."""

    def __init__(
        self, model: LanguageModel, request: Request, projection: Projection, units: Sequence[Component]
    ) -> None:
        self.site = units[0].site
        self.units = units
        self.projection = projection
        readouts = request.readouts
        # Without a dimension of prompts where all prompts have the same: that of length 1 is broadcast.
        directions = (readouts.directions[:1] if readouts.shared else readouts.directions) * model.residual_scale
        below = readouts.belongs(units[0])
        directions = directions if below is None else directions * below
        pulled = projection.read_vector(directions.mT).mT
        #: The columns of the units, side by side, in the order in which the units are asked for.
        every = torch.arange(projection.units * projection.width)
        columns = torch.cat([every[projection.columns(u.unit)] for u in units])
        self.all_in_order = torch.equal(columns, every)
        self.columns = columns.to(model.device)
        self.weights = pulled[:, self.columns]
        if projection.width > 1:
            # [prompt, column, unit · readout]: block by block, so that one product reads all units.
            prompts, _, count = self.weights.shape
            blocks = self.weights.new_zeros(prompts, len(units), projection.width, len(units), count)
            each = range(len(units))
            blocks[:, each, :, each] = self.weights.unflatten(1, (len(units), -1)).transpose(0, 1)
            self.weights = blocks.flatten(3).flatten(1, 2)

    def read(self, values: Tensor, projected: Tensor | None) -> Tensor:
        """Return ⟨y, a⟩, `[prompt, row, unit, readout]`.

        Args:
            values: `[prompt, row, columns]` the activations of all units.
            projected: `[prompt, row, width]` the projection's output, if a norm follows it.
        """
        values = values.to(self.weights.dtype)
        if not self.all_in_order:
            values = values[..., self.columns]
        if self.projection.width > 1:
            read: Tensor = (values @ self.weights).unflatten(-1, (len(self.units), -1))
        else:
            read = values[..., None] * self.weights[:, None]
        if projected is None:
            return read
        return read / self.projection.scale(projected.to(read.dtype))[..., None, None]
