"""Read components off the rows of a sweep, and turn that into readings at its end.

The engine's hooks call a `Recorder` in this order; lines in brackets are not called at every sublayer:

    Recorder(…)                           reads the clean pass, for all rows until they join
    for each block:
        read_stream(block)                the residual stream that enters it
        start_stage(stage)                rows that start here take over their parents' readings
        [read_terms, rewrite_stream]      the terms of that stream, before and after they are overwritten
        for attention, then the MLP:
            [start_stage(stage)]          before the MLP of a sequential block
            [add_change(unit, groups)]    each overridden unit: its change, as its patch replaces its activation
            [read_terms, add_terms]       the terms of a dictionary, wherever its site is in the sublayer
            [keep_units(sublayer)]        the activations of units, overwritten
            [keep_projected(sublayer)]    the projection's output, if a norm follows it
            read_reactions(sublayer)      for branches: the output, before it is overwritten
            [add_change(sublayer, groups)] the same of the sublayer itself
            read_sublayer(sublayer)       the output, overwritten, and the units that were kept
    finish(residual)                      the final residual streams; branches end as their bases, but for one change
    readings()                            effects, logits and metrics, by override
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines.clean.clean_pass import CleanPass
from hydrascope.engines.interface import Readings, Request
from hydrascope.engines.metrics import evaluate
from hydrascope.engines.override_change import units_site
from hydrascope.engines.readouts import final_scale
from hydrascope.engines.wavefront.branches import ReactingRows
from hydrascope.engines.wavefront.feature_sums import SummedFeatures
from hydrascope.engines.wavefront.row_streams import Points, TermWrite, is_clean
from hydrascope.engines.wavefront.schedule import Schedule
from hydrascope.engines.wavefront.term_reads import TermReads
from hydrascope.engines.wavefront.term_recorder import TermRecorder
from hydrascope.engines.wavefront.unit_reads import UnitReads
from hydrascope.models.language_model import LanguageModel, wider


class Recorder(TermRecorder):
    """The readings of every row at the final position, in the schedule's order.

    A row that hasn't joined yet has its parent's readings: those of the clean row, if nothing else.
    """

    needs_changes = True

    def __init__(self, model: LanguageModel, request: Request, plan: Schedule, clean: CleanPass) -> None:
        super().__init__(model, request, plan, Points.at_end(model, request.tokens))
        self.clean = clean
        wide = wider(model.dtype)
        prompts, readouts = len(request.tokens), len(request.readouts.rows)
        rows = self.first(len(plan.groups) + len(plan.branches))
        units = {
            sublayer: [unit for unit in request.units if unit.sublayer == sublayer and unit.is_unit]
            for sublayer in model.sublayers
        }
        terms = {
            home: [unit for unit in request.units if unit.sublayer == home and unit.is_term] for home in plan.events
        }
        #: Components in the order in which they are read, and the index of each.
        self.order = [
            component
            for sublayer in model.sublayers
            for component in (
                *(terms.get(Component(sublayer.block, "stream"), ()) if sublayer.kind == "attn" else ()),
                sublayer,
                *units[sublayer],
                *terms[sublayer],
            )
        ]
        self.column = {component: number for number, component in enumerate(self.order)}
        self.reads = {
            sublayer: UnitReads(model, request, model.projection(sublayer), here)
            for sublayer, here in units.items()
            if here
        }
        self.term_reads = {
            home: TermReads(model, request, model.dictionaries[home], here) for home, here in terms.items() if here
        }
        #: [component, prompt, row, readout] ⟨y_c, a⟩.
        self.read = torch.zeros(len(self.order), prompts, rows, readouts, dtype=wide, device=model.device)
        for sublayer in model.sublayers:
            self._read_output(sublayer, slice(None), clean.values[sublayer][:, None])
        for reads in self.reads.values():
            values = clean.values[reads.site][:, None]
            projected = reads.projection.apply(values) if reads.projection.norm is not None else None
            self._store(reads.units, slice(None), reads.read(values, projected))
        for home in self.term_reads:
            self._read_clean_terms(home)
        self.summed = {
            site.sublayer: SummedFeatures(model, request, model.dictionaries[site.sublayer], plan, clean)
            for site in request.summed
        }
        #: What stands at a site whose features are summed, until the scale of the norm after it is known.
        self._waiting: tuple[Tensor, Tensor, Sequence[TermWrite], dict[int, int]] | None = None
        #: Of the sublayer that computes now, the readings of terms that a norm's scale still divides.
        self._unscaled: Tensor | None = None
        #: [prompt, row, readout] ⟨x′ − x, a⟩ of residual streams whose terms are overwritten.
        self.own = torch.zeros(prompts, rows, readouts, dtype=wide, device=model.device)
        #: [prompt, row, width] δ, the change of what a row's ablated components write at the final position.
        self.delta = torch.zeros(prompts, rows, model.width, dtype=wide, device=model.device)
        #: [prompt, row, readout] of residual streams inside the network, and of δ of the sublayers below them.
        self.inner = torch.zeros(prompts, rows, readouts, dtype=wide, device=model.device)
        self.inner_delta = torch.zeros_like(self.inner)
        #: Readings of reacting sublayers and their units: components, rows, and [prompt, row, component, readout].
        self.branch_reads: list[tuple[Sequence[Component], Tensor, Tensor]] = []
        #: Of a sublayer that computes now and ends with a norm: the change before it by each overridden unit, and the
        #: groups that override the unit.
        self._normed_later: list[tuple[Sequence[int], Tensor]] = []
        #: The groups that start at each stage.
        self._starting: dict[int, list[int]] = defaultdict(list)
        for number, group in enumerate(plan.groups):
            self._starting[group.start].append(number)

    def rows(self, groups: Sequence[int]) -> slice | Tensor:
        """Return the rows of some groups."""
        if list(groups) == list(range(groups[0], groups[0] + len(groups))):
            return slice(self.first(groups[0]), self.first(groups[-1] + 1))
        return self.rows_of(groups)

    def site(self, sublayer: Component) -> Component | None:
        """Return the site of the units of `sublayer`, if any of them is overridden or read."""
        inside = self.reads_terms(sublayer) and self.model.dictionaries[sublayer].projection is not None
        return super().site(sublayer) or (units_site(sublayer) if inside or sublayer in self.reads else None)

    def start_stage(self, stage: int) -> None:
        """Let the groups that start at a stage take over their parents' readings so far."""
        starting = self._starting[stage]
        if not starting or (parents := self.parents(starting)) is None:
            return
        rows = self.rows(starting)
        before = sum(self.model.stage(component) < stage for component in self.order)
        self.read[:before, :, rows] = self.read[:before, :, parents]
        for each in (self.delta, self.inner, self.inner_delta, self.own):
            each[:, rows] = each[:, parents]

    def read_stream(self, block: int, residual: Tensor) -> None:
        """Read the residual streams that enter a block, `[prompt, row, width]`."""
        if numbers := self.request.readouts.read_before(block):
            read = self.request.readouts.select(numbers).read(residual)
            # A row that equals the clean one has its readings, without other rounding.
            read = torch.where(is_clean(residual)[..., None], read[:, :1], read)
            # Rows that haven't joined begin with the clean row's; those of other parents take over theirs later.
            self.inner[:, residual.shape[1] :, numbers] = read[:, :1]
            self.inner[:, : residual.shape[1], numbers] = read

    def keep_units(self, sublayer: Component, values: Tensor) -> None:
        """Keep the activations of all units, `[prompt, row, columns]`, until `sublayer` is read."""
        self._values = values if sublayer in self.reads or self.branches.frozen_units(sublayer) else None

    def add_change(self, component: Component, groups: Sequence[int], change: Tensor) -> None:
        """Add a component's change at the final position to δ of some groups.

        Args:
            component: the component.
            groups: the groups that override it.
            change: `[prompt, patch, columns]`.
        """
        home = component.sublayer
        if home in self.model.dictionaries:
            # Where its terms are overridden, too, `add_terms` adds both together.
            own = [{each.sublayer for each, _ in self.plan.groups[group].own if each.is_term} for group in groups]
            groups = [group for group, homes in zip(groups, own, strict=True) if home not in homes]
        if not groups:
            return
        if component.is_unit:
            projection = self.model.projection(home)
            change = projection.projected(change, component.unit)
            if projection.norm is not None:
                self._normed_later.append((groups, change))
                return
        self._add(home, groups, change.repeat(1, len(groups), 1))

    def _add(self, sublayer: Component, groups: Sequence[int], change: Tensor) -> None:
        rows = self.rows(groups)
        self.delta[:, rows] += change * self._scale(sublayer)
        if self.request.readouts.blocks:
            self.inner_delta[:, rows] += self._read(sublayer, change)

    def read_reactions(self, sublayer: Component, output: Tensor) -> list[ReactingRows]:
        """Read an output, `[prompt, row, width]`, before it is overwritten, for the branches."""
        reacting = super().read_reactions(sublayer, output)
        for found in reacting:
            self.branch_reads.append(([sublayer], found.rows, self._read(sublayer, found.output)[:, :, None]))
            if (reads := self.reads.get(sublayer)) is not None:
                assert found.values is not None
                self.branch_reads.append((reads.units, found.rows, reads.read(found.values, found.projected)))
        return reacting

    def read_sublayer(self, sublayer: Component, output: Tensor, starting: Tensor) -> None:
        """Read a sublayer and its units, once its output is overwritten.

        Args:
            output: `[prompt, row, width]` the output in the rows that had joined before.
            starting: the same in the rows that start with an override of the sublayer or its units.
        """
        events = self.plan.events[sublayer]
        count = output.shape[1]
        self._read_output(sublayer, slice(1, count), output[:, 1:])
        if events.starting:
            self._read_output(sublayer, self.rows(events.starting), starting)
        if (reads := self.reads.get(sublayer)) is not None:
            values, projected = self._values, self._projection_output
            assert values is not None
            read = reads.read(values[:, 1:], None if projected is None else projected[:, 1:])
            self._store(reads.units, slice(1, count), read[:, : count - 1])
            if events.at_units:
                self._store(reads.units, self.rows(events.at_units), read[:, count - 1 :])
            self._inherit(reads.units, events.at_output)
        if (terms := self.term_reads.get(sublayer)) is not None and terms.attached.projection is not None:
            self._inherit(terms.terms, events.at_output)
        self._inherit([component for component in self.order if component.sublayer == sublayer], events.elsewhere)
        stream = Component(sublayer.block, "stream")
        if sublayer.kind == "attn" and stream in self.term_reads:
            self._inherit(self.term_reads[stream].terms, [*events.starting, *events.elsewhere])
        self._freeze_units(sublayer)
        self._add_normed_changes(sublayer)
        super().read_sublayer(sublayer, output, starting)

    def _freeze_units(self, sublayer: Component) -> None:
        """Give units their clean readings in rows in which `sublayer` is frozen."""
        frozen = [group for group, frozen in self.plan.events[sublayer].writes.get(sublayer, []) if frozen]
        units = self.reads[sublayer].units if sublayer in self.reads else ()
        terms = self.term_reads[sublayer].terms if sublayer in self.term_reads else ()
        if frozen:
            for unit in (*units, *terms):
                column = self.read[self.column[unit]]
                column[:, self.rows(frozen)] = column[:, :1].clone()

    def _add_normed_changes(self, sublayer: Component) -> None:
        """Add the changes by overridden units to δ, through the norm that ends the sublayer."""
        if not self._normed_later:
            return
        assert self._projection_output is not None
        groups = sorted({group for each, _ in self._normed_later for group in each})
        place = {group: number for number, group in enumerate(groups)}
        whole = self.delta.new_zeros(len(self.delta), len(groups), self.request.patches, self.delta.shape[-1])
        for each, change in self._normed_later:
            whole[:, torch.tensor([place[group] for group in each], device=whole.device)] += change[:, None]
        projection, clean = self.model.projection(sublayer), self._projection_output[:, :1].to(whole.dtype)
        normed = projection.apply_norm(clean + whole.flatten(1, 2)) - projection.apply_norm(clean)
        self._add(sublayer, groups, normed)
        self._normed_later = []

    def _inherit(self, components: Sequence[Component], groups: Sequence[int]) -> None:
        """Give rows that don't pass through these components their parents' readings."""
        if groups and (parents := self.parents(groups)) is not None:
            for component in components:
                column = self.read[self.column[component]]
                column[:, self.rows(groups)] = column[:, parents]

    def _read(self, sublayer: Component, output: Tensor) -> Tensor:
        """Read a sublayer's output, `[prompt, row, width]`, as `[prompt, row, readout]`."""
        read = self.request.readouts.read(output) * self._scale(sublayer)
        below = self.request.readouts.belongs(sublayer)
        return read if below is None else read * below

    def _scale(self, home: Component) -> float:
        """Return the factor of what a sublayer adds to the stream; 1 for the stream itself."""
        return 1.0 if home.kind == "stream" else self.model.residual_scale

    def _read_output(self, sublayer: Component, rows: slice | Tensor, output: Tensor) -> None:
        self.read[self.column[sublayer]][:, rows] = self._read(sublayer, output)

    def _store(self, units: Sequence[Component], rows: slice | Tensor, read: Tensor) -> None:
        """Store the readings of units, `[prompt, row, unit, readout]`."""
        for number, unit in enumerate(units):
            self.read[self.column[unit]][:, rows] = read[:, :, number]

    def finish(self, residual: Tensor) -> None:
        """Keep the final residual streams, `[prompt, row, width]`, and end the readings of branches."""
        super().finish(residual)
        if not self.branches.each:
            return
        base = self.branches.base
        here = slice(residual.shape[1], None)
        for each in (self.delta, self.inner, self.inner_delta):
            each[:, here] = each[:, base]
        self.read[:, :, here] = self.read[:, :, base]
        for components, rows, read in self.branch_reads:
            for number, component in enumerate(components):
                column = self.read[self.column[component]]
                column[:, residual.shape[1] + rows] = read[:, :, number]
                if not component.is_unit:
                    self.inner[:, residual.shape[1] + rows] += read[:, :, number] - column[:, :1]

    def readings(self) -> Readings:
        """Return what was measured, in the order of the request's overrides."""
        assert self.final is not None
        request, readouts = self.request, self.request.readouts
        rows = self.override_rows()
        final, clean = self.final.to(self.delta.dtype), self.clean.final.to(self.delta.dtype)
        scale, own_scale = final_scale(self.model, clean), final_scale(self.model, final)

        def logit(residual: Tensor, inner: Tensor) -> Tensor:
            """Return logits, `[prompt, row, readout]`; inside the network they are `inner`."""
            own = final_scale(self.model, residual)
            through = readouts.read(residual) / own[..., None] + readouts.constants[:, None]
            return torch.where(readouts.final, through, inner)

        clean_logit = logit(clean[:, None], self.inner[:, :1])
        # Where nothing changed there is no effect, whatever the rounding.
        unchanged = is_clean(final)
        logits = torch.where(unchanged[..., None] & readouts.final, clean_logit, logit(final, self.inner))
        # If nothing changed, as before the last position, other rounding in a row of its own is no effect.
        still = ((self.delta == 0).all(-1) & (self.inner_delta == 0).all(-1))[..., None]
        direct = torch.where(
            still, clean_logit, logit(clean[:, None] + self.delta, self.inner[:, :1] + self.inner_delta)
        )
        indirect = torch.where(still, logits, logit(final - self.delta, self.inner - self.inner_delta))
        order = [self.column[component] for component in (*self.model.sublayers, *request.units)]
        read = readouts.rescale(self.read[order], scale[:, None].expand(-1, self.read.shape[2]))

        def by_override(values: Tensor) -> Tensor:
            found: Tensor = values[:, rows].movedim(-1, 0).unflatten(2, (-1, request.patches))
            return found

        metrics, metrics_ablated = self._metrics(rows)
        return Readings(
            unembed=read[:, :, 0].permute(2, 1, 0),
            embed=readouts.rescale(readouts.read(self.clean.embed[:, None])[:, 0], scale).T,
            logit=clean_logit[:, 0].T,
            unembed_ablated=read[:, :, rows].permute(3, 1, 2, 0).unflatten(2, (-1, request.patches)),
            logit_ablated=by_override(logits),
            logit_direct=by_override(direct),
            logit_indirect=by_override(indirect),
            scale=(scale[:, None] / own_scale)[:, rows].unflatten(1, (-1, request.patches)),
            metrics=metrics,
            metrics_ablated=metrics_ablated,
            own=by_override(readouts.rescale(self.own, scale[:, None].expand(-1, self.own.shape[1]))),
            sums={reads.attached.term_sites[0]: reads.sums() for reads in self.summed.values()},
            clean_error=(logit(final[:, :1], self.inner[:, :1]) - clean_logit).abs().max(),
        )

    def _metrics(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Compute metrics: `[metric, prompt]` clean, and `[metric, prompt, override, patch]`."""
        assert self.final is not None
        request, shape = self.request, (len(self.request.overrides), self.request.patches)
        if not request.metrics:
            return self.delta.new_zeros(0, len(request.tokens)), self.delta.new_zeros(0, len(request.tokens), *shape)
        answers = request.answers or [()] * len(self.final)
        each = [
            evaluate(self.model, request.metrics, final, clean, int(target), answer)
            for final, clean, target, answer in zip(self.final, self.final[:, 0], request.targets, answers, strict=True)
        ]
        values = torch.stack(each, 1)
        values = torch.where(is_clean(self.final), values[:, :, :1], values)
        return values[:, :, 0], values[:, :, rows].unflatten(2, shape)
