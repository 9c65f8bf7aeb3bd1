"""The wavefront engine: all overrides of many prompts in one pass over the blocks.

An ablation replaces the writes of components at some positions. Attention is causal, so no earlier position changes:
all rows of a prompt share its keys and values up to there. A *row* is the path of the last positions, the *suffix*,
from the ablated component to the top. Rows of all overrides, patches and prompts go through a sublayer together. At
each site the rows that are overridden there first join in, as copies of the row that they leave (`schedule`): the
clean row, row 0, or a row that begins alike. Nothing upstream of an ablation is recomputed, weights are read once, and
a component's effect is one dot product.

The model's own blocks do the computing. Hooks widen `[prompt, suffix, width]`, the last tokens of each prompt, to
`[prompt, row · suffix, width]`. Mostly only the last position is ablated, and a suffix is one token.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from hydrascope.components.component import Component
from hydrascope.engines.attention import FrozenInputs, attending, with_clean_rows, with_frozen
from hydrascope.engines.interface import Readings, Request, sites_read
from hydrascope.engines.kernels.differences import difference_kernels
from hydrascope.engines.kernels.patching import fast_kernels
from hydrascope.engines.wavefront.prepared import Prepared
from hydrascope.engines.wavefront.recorder import Recorder
from hydrascope.engines.wavefront.row_streams import Points, RowStreams
from hydrascope.engines.wavefront.term_overrides import TermOverrides
from hydrascope.engines.whole_answers import add_whole_answers
from hydrascope.models.batching import padded
from hydrascope.models.hooks import Handle, as_given, hooked, on_input, on_output, on_site
from hydrascope.models.language_model import LanguageModel, wider


@torch.no_grad()
def measure(model: LanguageModel, request: Request) -> Readings:
    """Measure the overrides of `request` on all of its prompts in one pass over the blocks.

    A second pass follows if a metric reads answers of several tokens.
    """
    read = (*request.units, *request.summed)
    prepared = Prepared.of(model, request, sites_read(model, read, request.overrides))
    recorder, _ = run_sweep(
        model, request, prepared, lambda: Recorder(model, request, prepared.plan, prepared.common.clean)
    )
    return add_whole_answers(model, request, recorder.readings(), _answer_log_probs)


def _answer_log_probs(model: LanguageModel, request: Request) -> tuple[Tensor, Tensor]:
    """Measure log p of whole answers; see `whole_answers.Measure`."""
    prepared = Prepared.of(model, request, ())
    points = Points.at_end(model, request.tokens, [len(answer) for answer in request.answers])
    streams, _ = run_sweep(model, request, prepared, lambda: RowStreams(model, request, prepared.plan, points))
    return streams.answer_log_probs()


@torch.no_grad()
def activations_before_override(
    model: LanguageModel, request: Request, sites: Sequence[Component]
) -> dict[Component, Tensor]:
    """Return activations at `sites` in each override's rows, before they are overwritten.

    Returns:
        `[prompt, override, patch, slot, columns]` by site; the clean activation at sites that aren't downstream of the
        override's first ablated component.
    """
    prepared = Prepared.of(model, request, ())
    points = Points.at_end(model, request.tokens)
    return run_sweep(model, request, prepared, lambda: RowStreams(model, request, prepared.plan, points), sites)[1]


@torch.no_grad()
def final_streams(model: LanguageModel, request: Request) -> tuple[Tensor, Tensor]:
    """Return the final residual streams; see `Engine.final_streams`."""
    prepared = Prepared.of(model, request, ())
    points = Points.at_end(model, request.tokens)
    streams, _ = run_sweep(model, request, prepared, lambda: RowStreams(model, request, prepared.plan, points))
    assert streams.final is not None
    return streams.final[:, 0], streams.final[:, streams.override_rows()].unflatten(1, (-1, request.patches))


_Streams = TypeVar("_Streams", bound=RowStreams)


def run_sweep(
    model: LanguageModel,
    request: Request,
    prepared: Prepared,
    make_record: Callable[[], _Streams],
    watch: Sequence[Component] = (),
) -> tuple[_Streams, dict[Component, Tensor]]:
    """Send all rows through the blocks; return their record and the watched activations."""
    ids, _ = padded(model, request.tokens)
    prefix = prepared.common.prefix
    with model.measuring(), _kernels(model, request, prepared):
        record = make_record()
        sweep = _Sweep(model, request, prepared, record, watch)
        freezing = with_frozen if request.products == "float32" else with_clean_rows
        attend = freezing(prefix, sweep.frozen_inputs, record.attention(prefix))
        with attending(model, attend), hooked(sweep.hooks()):
            suffixes = ids.gather(1, prefix.suffix)
            # Without a mask transformers looks at the positions, for which the device would have to stop.
            everything = torch.ones_like(suffixes)
            model.hf.base_model(
                input_ids=suffixes, attention_mask=everything, position_ids=prefix.suffix, use_cache=False
            )
    return record, sweep.watched


def _kernels(model: LanguageModel, request: Request, prepared: Prepared) -> AbstractContextManager[None]:
    """Return the context in which the model multiplies as the request asks."""
    if request.products == "float32":
        return fast_kernels(model, prepared.routines)
    return difference_kernels(model, prepared.routines, len(request.tokens), prepared.common.prefix.length)


class _Sweep(TermOverrides):
    """A sweep: the hooks that let rows join, overwrite and read them, block by block."""

    def hooks(self) -> Iterator[Handle]:
        """Yield the hooks of the sweep."""
        for number, block in enumerate(self.model.blocks):
            attn, mlp = Component(number, "attn"), Component(number, "mlp")
            yield block.register_forward_pre_hook(partial(self._enter, attn), with_kwargs=True)
            yield on_input(self.model.attention(number), partial(self._narrow, attn))
            for sublayer in (attn, mlp):
                watched = next((site for site in self.watch if site != sublayer and site.sublayer == sublayer), None)
                if units := self.record.site(sublayer) or watched:
                    yield on_site(self.model, units, partial(self._units, sublayer))
                    if (norm := self.model.projection(sublayer).norm) is not None:
                        yield on_input(norm, partial(self._projected, sublayer))
                if (attached := self._active(sublayer)) and attached.mlp_input is not None:
                    yield on_input(attached.mlp_input, partial(self._receive, sublayer))
                yield on_output(self.model.output(sublayer), partial(self._write, sublayer))
        yield on_input(self.model.final_norm, self._finish)

    def _joins_inside(self, sublayer: Component) -> bool:
        """Whether rows that start at `sublayer` join in the block: at attention, if sequential.

        All others differ from their parents only after the block, and join at the next one.
        """
        return sublayer.kind == "attn" and not self.model.parallel

    def _enter(
        self, attn: Component, block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Join the pending rows before a block, and make room for those that join inside."""
        hidden = args[0] if args else kwargs["hidden_states"]
        rows = self._join_pending(self._rows(hidden))
        if inputs := self._events(attn).at_inputs:
            rows = torch.cat([rows, self._copies(rows, inputs)], 1)
            self.joined += len(inputs)
        self.record.read_stream(attn.block, self._final(rows))
        self.record.start_stage(self.model.stage(attn))
        if self._active(home := Component(attn.block, "stream")):
            rows = self._override_terms(home, rows, rows, self._row_count(), ())
        if self.length > 1 and "position_embeddings" in kwargs:
            tiled = tuple(each.repeat(1, rows.shape[1], 1) for each in kwargs["position_embeddings"])
            kwargs = {**kwargs, "position_embeddings": tiled}
        if self._joins_inside(attn) and (starting := self._events(attn).starting):
            rows = torch.cat([rows, self._copies(rows, starting)], 1)
        hidden = rows.flatten(1, 2)
        return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})

    def _join_pending(self, rows: Tensor) -> Tensor:
        if self.pending is None:
            return rows
        count = self.pending.shape[1] // self.request.patches
        groups = range(self.joined, self.joined + count)
        joining = (self._copies(rows, groups) + self.pending).to(rows.dtype)
        self.pending = None
        self.joined += count
        return torch.cat([rows, joining], 1)

    def frozen_inputs(self, block: int) -> FrozenInputs:
        """Return the frozen inputs of heads of a block: by kind, the head and the rows."""
        found: FrozenInputs = {}
        for component, writes in self._events(Component(block, "attn")).writes.items():
            if component.is_input:
                for group, _ in writes:
                    rows = slice(self.record.first(group), self.record.first(group + 1))
                    found.setdefault(component.kind, []).append((component.unit, rows))
        return found

    def _narrow(self, attn: Component, hidden: Tensor) -> Tensor | None:
        """Drop the rows that start at attention before it computes: they need none."""
        if not (self._joins_inside(attn) and self._events(attn).starting):
            return None
        return hidden[:, : self._row_count() * self.length].contiguous()

    def _units(self, sublayer: Component, hidden: Tensor) -> Tensor | None:
        """Join rows at the site of heads or neurons, overwrite them, and read every row."""
        rows, events = self._rows(hidden), self._events(sublayer)
        self._keep_watched(sublayer, rows, inside=True)
        if events.at_units:
            rows = torch.cat([rows, self._copies(rows, events.at_units)], 1)
        for component, writes in events.writes.items():
            if component.is_unit:
                self._override(component, writes, rows, rows[:, :1], self._first_new_rows(events.at_units))
        if (attached := self._active(sublayer)) and attached.declared.place == "heads":
            rows = self._override_terms(sublayer, rows, rows, self._row_count(), events.at_units)
        self.record.keep_units(sublayer, self._final(rows))
        return as_given(rows.flatten(1, 2), hidden) if events.at_units else None

    def _projected(self, sublayer: Component, hidden: Tensor) -> None:
        """Keep the input of the norm of a sublayer's output: units write at its scale."""
        rows = self._rows(hidden)
        if (attached := self._active(sublayer)) and attached.declared.place.startswith("raw."):
            rows = self._override_terms(sublayer, rows, rows, self._row_count(), self._events(sublayer).at_units)
        self.record.keep_projected(sublayer, self._final(rows))

    def _write(self, sublayer: Component, hidden: Tensor) -> Tensor | None:
        """Join rows at the output of a sublayer, overwrite them, and read every row."""
        events, count = self._events(sublayer), self._row_count()
        output = self._rows(hidden)
        rows, fresh = output[:, :count], output[:, count:]
        self.record.read_reactions(sublayer, self._final(rows))
        self._keep_watched(sublayer, rows, inside=False)
        if events.at_output:
            fresh = torch.cat([fresh, self._copies(rows, events.at_output)], 1)
        writes = events.writes.get(sublayer, [])
        self._override(sublayer, [write for write in writes if write[0] < self.joined], rows, rows[:, :1], {})
        starting = {group: place * self.request.patches for place, group in enumerate(events.starting)}
        self._override(sublayer, [write for write in writes if write[0] >= self.joined], fresh, rows[:, :1], starting)
        if (attached := self._active(sublayer)) and attached.projection is None:
            x = rows if attached.mlp_input is None else self.received
            fresh_x = fresh if attached.mlp_input is None else self._copies(x, events.starting)
            rows = self._override_terms(sublayer, x, rows, count, ())
            fresh = self._override_terms(sublayer, fresh_x, fresh, 0, events.starting)
        self.record.read_sublayer(sublayer, self._final(rows), self._final(fresh))
        if self._joins_inside(sublayer):
            self.joined += len(events.starting)
            self.record.start_stage(self.model.stage(sublayer) + 1)
            # What starts at units has gone through the projection: only what starts here joins.
            return torch.cat([rows, fresh], 1).flatten(1, 2) if events.at_output else None
        if events.starting:
            self._join_next_block(sublayer, (fresh - self._copies(rows, events.starting)) * self.model.residual_scale)
        return as_given(rows.flatten(1, 2), hidden) if events.at_units else None

    def _keep_watched(self, sublayer: Component, rows: Tensor, *, inside: bool) -> None:
        """Keep the watched activations of a sublayer, at its output or at the site of its units.

        A row that hasn't joined yet has the activation of the row that it leaves.
        """
        for site in self.watch:
            if site.sublayer != sublayer or (site != sublayer) != inside:
                continue
            places = []
            for group in self.plan.index:
                while group >= self.joined:
                    group = self.plan.groups[group].parent
                places += [self.record.first(group) + (patch if group else 0) for patch in range(self.request.patches)]
            here = torch.tensor(places)[:, None]
            kept = rows[self._index(rows, here)].to(self.model.device)
            self.watched[site] = kept.unflatten(1, (-1, self.request.patches))

    def _override(
        self,
        component: Component,
        writes: Sequence[tuple[int, bool]],
        rows: Tensor,
        clean: Tensor,
        joining: dict[int, int],
    ) -> None:
        """Overwrite `component` by its patches, or its clean activation, in the rows of some groups.

        Args:
            writes: the groups, and whether they freeze it.
            rows: `[prompt, row, suffix, columns]` activations at the component's site.
            clean: `[prompt, 1, suffix, columns]` the clean activation there.
            joining: the first row of each group that hasn't joined yet.
        """
        if not writes:
            return
        columns = self.model.columns(component)
        clean = clean[..., columns]
        values = self.values.get(component)
        patches = torch.arange(self.request.patches)

        def rows_of(groups: Sequence[int]) -> Tensor:
            """Return their rows, `[group, patch]`."""
            first = [joining[group] if group in joining else self.record.first(group) for group in groups]
            return (torch.tensor(first, dtype=torch.long)[:, None] + patches).to(rows.device)

        if frozen := [group for group, is_frozen in writes if is_frozen]:
            # A copy: the clean row is one of `rows`.
            rows[:, rows_of(frozen).flatten(), :, columns] = clean.clone()
        ablating = [group for group, is_frozen in writes if not is_frozen]
        if not ablating:
            return
        assert values is not None
        if self.length == 1:
            rows[:, rows_of(ablating), 0, columns] = values[:, None, :, 0].to(rows)
        else:
            every = rows_of(ablating).flatten()[:, None]
            rows[*self._index(rows, every), columns] = values.to(rows).repeat(1, len(ablating), 1, 1)
        if self.record.needs_changes:
            self.record.add_change(component, ablating, self._change(values, clean))

    def _change(self, values: Tensor, clean: Tensor) -> Tensor:
        """Return what patches change at the final position `[prompt, patch, columns]`, 0 elsewhere."""
        wide, clean = wider(values.dtype), self._final(clean)
        if self.length == 1:
            return values[:, :, 0].to(wide) - clean.to(wide)
        change = values.to(wide) - clean.to(wide)[:, :, None]
        return (change * self.at_last[:, None, :, None]).sum(2)

    def _join_next_block(self, sublayer: Component, change: Tensor) -> None:
        """Keep the changes of rows that start at a sublayer until they join at the next block."""
        events = self._events(sublayer)
        together = sorted(events.starting + events.elsewhere)
        if self.pending is None and together == events.starting:
            self.pending = change
            return
        # In parallel blocks some rows start with the other sublayer, some with both.
        if self.pending is None:
            self.pending = change.new_zeros(len(change), len(together) * self.request.patches, *change.shape[2:])
        patches = torch.arange(self.request.patches, device=change.device)
        places = [patches + (group - self.joined) * self.request.patches for group in events.starting]
        self.pending[:, torch.cat(places)] += change

    def _finish(self, hidden: Tensor) -> Tensor:
        """Keep every row's final residual stream, and let the clean row go on alone."""
        rows = self._join_pending(self._rows(hidden))
        self.record.finish(self._final(rows))
        return rows[:, 0]
