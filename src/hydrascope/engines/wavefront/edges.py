"""Edges in one pass over the blocks: rows join where their readers read.

The reader sees the residual stream plus the source's change δ, and nothing else does: what the reader adds to the
stream is reduced by δ, so that the stream after it holds the reader's reaction alone. In parallel blocks the other
sublayer of the block writes its clean output. A row of all edges at once keeps δ, from the source on.
"""

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hydrascope.components.component import INPUT_KINDS, LOGITS, Component
from hydrascope.components.edge import EVERYTHING, Edge, gap_after, gap_before
from hydrascope.engines.attention import FrozenInputs, attending, with_frozen
from hydrascope.engines.clean.prefix import compute_prefix
from hydrascope.engines.edges import EdgeReadings, EdgeRequest, read_rows
from hydrascope.engines.fused_attention import fused_row_attention
from hydrascope.engines.kernels.patching import fast_kernels, fastest_routines
from hydrascope.models.batching import padded
from hydrascope.models.hooks import Handle, by_prompt, hooked, on_input, on_output
from hydrascope.models.language_model import LanguageModel, wider


@torch.no_grad()
def measure_edges(model: LanguageModel, request: EdgeRequest) -> EdgeReadings:
    """Measure the edges of `request` on all of its prompts in one pass over the blocks."""
    routines = request.routines if request.routines is not None else fastest_routines(model)
    prefix = request.prefix or compute_prefix(model, request.tokens, request.positions, model.sublayers, routines)
    ids, _ = padded(model, request.tokens)
    with model.measuring(), fast_kernels(model, routines):
        rows = _EdgeRows(model, request, prefix.prefix.start, prefix.prefix.length)
        attend = with_frozen(prefix.prefix, rows.frozen_inputs, fused_row_attention(prefix.prefix))
        with attending(model, attend), hooked(rows.hooks()):
            suffixes = ids.gather(1, prefix.prefix.suffix)
            everything = torch.ones_like(suffixes)
            model.hf.base_model(
                input_ids=suffixes, attention_mask=everything, position_ids=prefix.prefix.suffix, use_cache=False
            )
    return rows.readings()


class _EdgeRows:
    """The rows of edges: the clean row, then those of each edge in order of joining."""

    def __init__(self, model: LanguageModel, request: EdgeRequest, start: Tensor, length: int) -> None:
        self.model = model
        self.request = request
        self.length = length
        last = torch.tensor([len(ids) - 1 for ids in request.tokens], device=model.device)
        self.read_at = last - start
        self.prompts = torch.arange(len(request.tokens), device=model.device)
        gaps = [_joins_at(model, edge) for edge in request.edges]
        #: The edges in the order in which their rows join, and the numbers of those of each place.
        self.order = sorted(range(len(gaps)), key=gaps.__getitem__)
        self.at: dict[int, list[int]] = defaultdict(list)
        for place, number in enumerate(self.order):
            self.at[gaps[number]].append(place)
        self.joined = 0
        self.changes = {source: self._over_suffix(each, start) for source, each in request.changes.items()}
        wide, readouts = wider(model.dtype), len(request.readouts.rows)
        rows = 1 + len(gaps) * request.patches
        #: [prompt, row, readout] the readings before blocks, and the changes of what sublayers write.
        self.inner = torch.zeros(len(last), rows, readouts, dtype=wide, device=model.device)
        self.written = torch.zeros_like(self.inner)
        self.final: Tensor | None = None

    def _over_suffix(self, change: Tensor, start: Tensor) -> Tensor:
        """Return a change at each position of the suffix, `[prompt, patch, suffix, width]`."""
        change = change.to(self.model.device)
        if self.length == 1:
            return change[:, :, :1]
        whole = change.new_zeros(*change.shape[:2], self.length, change.shape[-1])
        index = (self.request.positions.to(start.device) - start[:, None])[:, None, :, None]
        # Repeated slots hold 0, so that sums are the values themselves.
        return whole.scatter_add_(2, index.expand_as(change), change)

    def hooks(self) -> Iterator[Handle]:
        """Yield the hooks of the sweep."""
        for number, block in enumerate(self.model.blocks):
            yield block.register_forward_pre_hook(partial(self._enter, number), with_kwargs=True)
            yield on_input(self.model.attention(number), self._narrow)
            for sublayer in (Component(number, "attn"), Component(number, "mlp")):
                yield on_output(self.model.output(sublayer), partial(self._write, sublayer))
        yield on_input(self.model.final_norm, self._finish)

    def _rows(self, hidden: Tensor) -> Tensor:
        rows: Tensor = by_prompt(hidden, len(self.prompts)).unflatten(1, (-1, self.length))
        return rows

    def _last(self, rows: Tensor) -> Tensor:
        """Return rows at the last position, `[prompt, row, width]`, on the model's device."""
        each = self.prompts.to(rows.device), slice(None), self.read_at.to(rows.device)
        return rows[each].to(self.model.device)

    def _count(self) -> int:
        return 1 + self.joined * self.request.patches

    def _change(self, place: int) -> Tensor:
        """Return the change of a row group's source, `[prompt, patch, suffix, width]`."""
        return self.changes[self.request.edges[self.order[place]].source]

    def _added(self, places: list[int], like: Tensor) -> Tensor:
        return torch.cat([self._change(place) for place in places], 1).to(like)

    def _enter(
        self, number: int, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Let rows join before a block, and make room for those that join in it."""
        hidden = args[0] if args else kwargs["hidden_states"]
        rows, before = self._rows(hidden), self._count()
        if places := self.at.get(2 * number):
            rows = torch.cat([rows, rows[:, :1] + self._added(places, rows)], 1)
            self.joined += len(places)
        self._read_stream(number, rows, before)
        if self.length > 1 and "position_embeddings" in kwargs:
            tiled = tuple(each.repeat(1, rows.shape[1], 1) for each in kwargs["position_embeddings"])
            kwargs = {**kwargs, "position_embeddings": tiled}
        if inside := self.at.get(2 * number + 1):
            room = rows[:, :1].expand(-1, len(inside) * self.request.patches, -1, -1)
            rows = torch.cat([rows, room], 1)
        hidden = rows.flatten(1, 2)
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    def _read_stream(self, number: int, rows: Tensor, before: int) -> None:
        """Read the streams that enter a block; a reader's own change is not in the stream."""
        numbers = self.request.readouts.read_before(number)
        if not numbers:
            return
        read = self.request.readouts.select(numbers).read(self._last(rows))
        self.inner[:, :, numbers] = read[:, :1].expand(-1, self.inner.shape[1], -1)
        self.inner[:, :before, numbers] = read[:, :before]
        for place in self.at.get(2 * number, ()):
            if self._edge(place).reader.label == EVERYTHING:
                here = self._here(place)
                self.inner[:, here, numbers] = read[:, here]

    def _edge(self, place: int) -> Edge:
        return self.request.edges[self.order[place]]

    def _here(self, place: int) -> slice:
        return slice(1 + place * self.request.patches, 1 + (place + 1) * self.request.patches)

    def _narrow(self, hidden: Tensor) -> Tensor | None:
        """Drop the rows that join after attention before it computes."""
        wanted = self._count() * self.length
        return None if by_prompt(hidden, len(self.prompts)).shape[1] == wanted else hidden[:, :wanted].contiguous()

    def frozen_inputs(self, block: int) -> FrozenInputs:
        """Return the inputs of a block's heads that don't read the change, by kind."""
        found: FrozenInputs = {}
        for place in self.at.get(2 * block, ()):
            reader = self._edge(place).reader
            if reader.sublayer != Component(block, "attn") or not reader.inputs:
                continue
            for kind in INPUT_KINDS:
                for head in self.model.units(reader.sublayer):
                    if Component(block, kind, head.unit) not in reader.inputs:
                        found.setdefault(kind, []).append((head.unit, self._here(place)))
        return found

    def _write(self, sublayer: Component, hidden: Tensor) -> Tensor | None:
        """Take δ off what its reader adds to the stream, and let rows join after attention."""
        rows, scale = self._rows(hidden), self.model.residual_scale
        start = 2 * sublayer.block
        first = min(self.at.get(start, ()), default=None)
        reading = [
            place
            for gap in (start, start + 1)
            for place in self.at.get(gap, ())
            if self._here(place).start < rows.shape[1]
        ]
        for place in reading:
            reader = self._edge(place).reader
            if reader.sublayer is not None and reader.sublayer != sublayer and self.model.parallel:
                rows[:, self._here(place)] = rows[
                    :, :1
                ]  # the other sublayer of a parallel block reads the clean stream
        assert first is None or first <= self.joined
        self._read_change(sublayer, rows)
        for place in reading:
            if self._edge(place).reader.sublayer == sublayer:
                rows[:, self._here(place)] -= (self._change(place) / scale).to(rows)
        inside = self.at.get(start + 1) if sublayer.kind == "attn" else None
        if not inside:
            return None
        joining = rows[:, :1] + self._added(inside, rows) / scale
        self.joined += len(inside)
        return torch.cat([rows, joining], 1).flatten(1, 2)

    def _read_change(self, sublayer: Component, rows: Tensor) -> None:
        """Read the changes of what a sublayer writes."""
        last = self._last(rows)
        wide = last.to(self.written.dtype)
        read = self.request.readouts.read(wide[:, 1:] - wide[:, :1]) * self.model.residual_scale
        below = self.request.readouts.belongs(sublayer)
        self.written[:, 1 : last.shape[1]] += read if below is None else read * below

    def _finish(self, hidden: Tensor) -> Tensor:
        """Keep the final residual streams, and let the clean row go on alone."""
        rows = self._rows(hidden)
        if places := self.at.get(2 * len(self.model.blocks)):
            rows = torch.cat([rows, rows[:, :1] + self._added(places, rows)], 1)
            self.joined += len(places)
        self.final = self._last(rows)
        return rows[:, 0]

    def readings(self) -> EdgeReadings:
        """Return the readings in the order of the request's edges."""
        assert self.final is not None
        for place, number in enumerate(self.order):
            edge = self.request.edges[number]
            if edge.reader.sublayer is None:  # its δ reaches the final norm itself
                change = self._last(self._change(place)).to(self.written.dtype)
                read, below = self.request.readouts.read(change), self.request.readouts.belongs(edge.source)
                own = read if below is None else read * below
                self.written[:, self._here(place)] += own
                if edge.reader.label == LOGITS:
                    # A readout inside the network reads the change itself.
                    self.inner[:, self._here(place)] += torch.where(self.request.readouts.final, 0, own)
        patches = torch.arange(self.request.patches, device=self.model.device)
        places = {number: place for place, number in enumerate(self.order)}
        each = [1 + places[number] * self.request.patches + patches for number in range(len(self.order))]
        index = torch.cat([patches.new_zeros(1), *each])
        return read_rows(self.model, self.request, self.final[:, index], self.inner[:, index], self.written[:, index])


def _joins_at(model: LanguageModel, edge: Edge) -> int:
    """Return the place in the residual stream at which the rows of an edge join."""
    if edge.reader.label == LOGITS:
        return 2 * len(model.blocks)
    if edge.reader.sublayer is None:
        return gap_after(model, edge.source)
    return gap_before(model, edge.reader.sublayer)
