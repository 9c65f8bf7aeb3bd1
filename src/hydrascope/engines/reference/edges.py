"""Edges by plain forward passes of whole prompts, with hooks, for every model."""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from hydrascope.components.component import INPUT_KINDS, LOGITS, Component
from hydrascope.components.edge import Edge, gap_after, gap_before
from hydrascope.engines.edges import EdgeReadings, EdgeRequest, read_rows
from hydrascope.engines.reference.frozen_inputs import freeze_head_inputs
from hydrascope.models.hooks import Handle, by_prompt, hooked, on_input, on_output
from hydrascope.models.language_model import LanguageModel, wider

#: The number of rows in one forward pass, the clean one besides.
ROWS = 16


@torch.no_grad()
def measure_edges(model: LanguageModel, request: EdgeRequest) -> EdgeReadings:
    """Measure the edges of `request` by plain forward passes, each prompt alone."""
    rows = [(edge, patch) for edge in request.edges for patch in range(request.patches)]
    finals: list[Tensor] = []
    inners: list[Tensor] = []
    changes: list[Tensor] = []
    with model.measuring():
        for index in range(len(request.tokens)):
            passes = [
                _Pass(model, request, index, rows[start : start + ROWS]).run() for start in range(0, len(rows), ROWS)
            ]
            for found, number in ((finals, 0), (inners, 1), (changes, 2)):
                # Every pass begins with the clean row.
                found.append(torch.cat([passes[0][number][:1], *(each[number][1:] for each in passes)]))
    return read_rows(model, request, torch.stack(finals), torch.stack(inners), torch.stack(changes))


class _Pass:
    """Copies of one prompt in one pass: a clean one, then one for each edge and patch."""

    def __init__(
        self, model: LanguageModel, request: EdgeRequest, index: int, rows: Sequence[tuple[Edge, int]]
    ) -> None:
        self.model = model
        self.request = request
        self.index = index
        self.rows = rows
        self.positions = request.positions[index]
        wide, readouts = wider(model.dtype), len(request.readouts.rows)
        self.inner = torch.zeros(1 + len(rows), readouts, dtype=wide, device=model.device)
        self.written = torch.zeros_like(self.inner)
        self.final: Tensor | None = None

    def run(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return `[row, width]` the final streams, and `[row, readout]` inner readings and changes."""
        ids = torch.tensor([list(self.request.tokens[self.index])] * (1 + len(self.rows)), device=self.model.device)
        frozen = [(), *(self._frozen(edge) for edge, _ in self.rows)]
        with freeze_head_inputs(self.model, self.request.tokens[self.index], frozen), hooked(self._hooks()):
            self.model.hf.base_model(input_ids=ids, use_cache=False)
        assert self.final is not None
        return self.final, self.inner, self.written

    def _frozen(self, edge: Edge) -> list[Component]:
        """Return the inputs of heads that don't read the change."""
        sublayer = edge.reader.sublayer
        if sublayer is None or not edge.reader.inputs:
            return []
        heads = self.model.units(sublayer)
        each = [Component(sublayer.block, kind, head.unit) for kind in INPUT_KINDS for head in heads]
        return [component for component in each if component not in edge.reader.inputs]

    def _hooks(self) -> Iterator[Handle]:
        for number, block in enumerate(self.model.blocks):
            yield on_input(block, partial(self._enter, number))
            for sublayer in (Component(number, "attn"), Component(number, "mlp")):
                yield on_output(self.model.output(sublayer), partial(self._write, sublayer))
        yield on_input(self.model.final_norm, self._finish)

    def _joins_at(self, edge: Edge) -> int:
        if edge.reader.label == LOGITS:
            return 2 * len(self.model.blocks)
        sublayer = edge.reader.sublayer
        return gap_after(self.model, edge.source) if sublayer is None else gap_before(self.model, sublayer)

    def _add(self, hidden: Tensor, row: int, sign: float) -> None:
        """Add a row's change, times `sign`, to hidden states `[row, position, width]`."""
        edge, patch = self.rows[row]
        change = self.request.changes[edge.source][self.index, patch].to(hidden)
        for slot, position in enumerate(self.positions.tolist()):
            hidden[1 + row, position] += sign * change[slot]

    def _enter(self, number: int, hidden: Tensor) -> Tensor:
        """Add changes to the stream that enters a block."""
        changed = by_prompt(hidden, 1 + len(self.rows)).clone()
        for row, (edge, _) in enumerate(self.rows):
            if self._joins_at(edge) == 2 * number and edge.reader.sublayer is None:
                self._add(changed, row, 1.0)
        if numbers := self.request.readouts.read_before(number):
            # The change that one sublayer alone reads is not in the stream.
            self._keep_inner(numbers, changed)
        for row, (edge, _) in enumerate(self.rows):
            if self._joins_at(edge) == 2 * number and edge.reader.sublayer is not None:
                self._add(changed, row, 1.0)
        return changed

    def _keep_inner(self, numbers: list[int], hidden: Tensor) -> None:
        for number in numbers:
            direction = self.request.readouts.rows[number].direction[self.index]
            self.inner[:, number] = hidden[:, -1].to(direction) @ direction

    def _write(self, sublayer: Component, hidden: Tensor) -> Tensor:
        """Change the output of a sublayer where it, or the other of its block, reads a change."""
        model = self.model
        output, scale = by_prompt(hidden, 1 + len(self.rows)).clone(), model.residual_scale
        for row, (edge, _) in enumerate(self.rows):
            reader = edge.reader.sublayer
            if model.parallel and reader is not None and reader.block == sublayer.block and reader != sublayer:
                output[1 + row] = output[0]
        for number, readout in enumerate(self.request.readouts.rows):
            below = readout.before < 0 or sublayer.block < readout.before
            changed = (output[:, -1] - output[:1, -1]).to(readout.direction) @ readout.direction[self.index]
            self.written[:, number] += changed * scale * below
        for row, (edge, _) in enumerate(self.rows):
            if edge.reader.sublayer == sublayer:
                self._add(output, row, -1 / scale)
            if sublayer.kind == "attn" and self._joins_at(edge) == 2 * sublayer.block + 1:
                self._add(output, row, 1 / scale)
        return output if hidden.ndim == 3 else output.flatten(0, 1)

    def _finish(self, hidden: Tensor) -> Tensor:
        final = by_prompt(hidden, 1 + len(self.rows)).clone()
        for row, (edge, patch) in enumerate(self.rows):
            if self._joins_at(edge) == 2 * len(self.model.blocks):
                self._add(final, row, 1.0)
            if edge.reader.sublayer is None:
                self._count_own(row, edge, patch)
        self.final = final[:, -1].clone()
        return final

    def _count_own(self, row: int, edge: Edge, patch: int) -> None:
        """Count the source's own change, which the final norm reads itself."""
        at_last = self.positions == len(self.request.tokens[self.index]) - 1
        change = self.request.changes[edge.source][self.index, patch][at_last.to("cpu")].sum(0)
        for number, readout in enumerate(self.request.readouts.rows):
            block = edge.source.block
            below = readout.before < 0 or block < readout.before or edge.source.kind == "stream"
            own = change.to(readout.direction) @ readout.direction[self.index]
            self.written[1 + row, number] += own * below
            if edge.reader.label == LOGITS and readout.before >= 0:
                # A readout inside the network reads the change itself.
                self.inner[1 + row, number] += own * below
