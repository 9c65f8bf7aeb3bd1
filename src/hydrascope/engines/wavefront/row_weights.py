"""Keep the attention weights of every row of a sweep at the last position."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines.attention import Attend, Prefix, row_attention
from hydrascope.engines.interface import Request
from hydrascope.engines.wavefront.engine import run_sweep
from hydrascope.engines.wavefront.prepared import Prepared
from hydrascope.engines.wavefront.row_streams import Points, RowStreams
from hydrascope.engines.wavefront.schedule import Schedule
from hydrascope.models.language_model import LanguageModel


@torch.no_grad()
def attention_weights(model: LanguageModel, request: Request, heads: Sequence[Component]) -> tuple[Tensor, Tensor]:
    """Return attention weights; see `Engine.attention_weights`."""
    common, points = Prepared.of(model, request, ()).common, Points.at_end(model, request.tokens)
    found = []
    # Each override in a sweep of its own: together some would become branches, which compute no attention.
    for override in request.overrides:
        alone = replace(request, overrides=(override,), prefix=common)
        prepared = Prepared.of(model, alone, ())

        def make_record(request: Request = alone, plan: Schedule = prepared.plan) -> RowWeights:
            return RowWeights(model, request, plan, points, common.prefix, heads)

        found.append(run_sweep(model, alone, prepared, make_record)[0].weights())
    return found[0][0], torch.stack([ablated for _, ablated in found], 1)


class RowWeights(RowStreams):
    """The attention weights of some heads in every row, at each prompt's last position."""

    def __init__(
        self,
        model: LanguageModel,
        request: Request,
        plan: Schedule,
        points: Points,
        prefix: Prefix,
        heads: Sequence[Component],
    ) -> None:
        super().__init__(model, request, plan, points)
        self.prefix = prefix
        self.heads = heads
        #: By head `[prompt, 1 + patch, position]`, the clean row first.
        self.kept: dict[Component, Tensor] = {}

    def attention(self, prefix: Prefix) -> Attend:
        """Return the attention of rows that share `prefix`, which gives the weights."""
        return row_attention(prefix, self.take_weights)

    def take_weights(self, block: int, weights: Tensor) -> None:
        """Keep the weights of the block's heads, with positions counted from the prompt's start.

        Args:
            block: the block's index.
            weights: `[prompt, head, row · suffix, prefix and suffix]`.
        """
        heads = [head for head in self.heads if head.block == block]
        if not heads:
            return
        prefix, length = self.prefix, max(map(len, self.request.tokens))
        rows = weights.unflatten(2, (-1, prefix.length))
        prompts = torch.arange(len(rows))
        # [prompt, row, head, prefix and suffix]
        last = rows.transpose(1, 3)[prompts, (self.points.positions - prefix.start).cpu()].to(self.model.device)
        whole = last.new_zeros(*last.shape[:3], max(length, prefix.before + prefix.length))
        whole[..., : prefix.before] = last[..., : prefix.before]
        own = prefix.suffix[:, None, None].expand(*last.shape[:3], -1)
        whole.scatter_add_(-1, own, last[..., prefix.before :])
        which = self._rows_of_override(last.shape[1])
        for head in heads:
            self.kept[head] = whole[:, which, head.unit, :length]

    def _rows_of_override(self, joined: int) -> list[int]:
        """Return the clean row, and the row of each patch of the only override.

        An override that hasn't joined yet attends as the row that it leaves.
        """
        group = self.plan.index[0]
        while self.first(group) >= joined:
            group = self.plan.groups[group].parent
        return [0, *(self.first(group) + (patch if group else 0) for patch in range(self.request.patches))]

    def weights(self) -> tuple[Tensor, Tensor]:
        """Return `[prompt, head, position]` of the clean row, and `[prompt, patch, head, position]`."""
        found = torch.stack([self.kept[head] for head in self.heads], 2)
        return found[:, 0], found[:, 1:]
