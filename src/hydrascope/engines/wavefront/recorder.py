"""What is read off the rows of a sweep, layer by layer, and what that makes at its end."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hydrascope.components.component import Component
from hydrascope.engines.clean.clean_pass import CleanPass
from hydrascope.engines.interface import Readings, Request
from hydrascope.engines.metrics import evaluate
from hydrascope.engines.readouts import final_scale
from hydrascope.engines.wavefront.branches import Branches
from hydrascope.engines.wavefront.schedule import Schedule
from hydrascope.models.language_model import LanguageModel, wider
from hydrascope.models.projection import Projection


class Recorder:
    """The readings of every row at the final position, by the row's place in the schedule.

    A row that hasn't joined yet reads what its parent does: the clean run, unless its group says otherwise.
    """

    def __init__(self, model: LanguageModel, request: Request, plan: Schedule, clean: CleanPass) -> None:
        self.model = model
        self.request = request
        self.plan = plan
        self.clean = clean
        wide = wider(model.dtype)
        prompts, readouts = len(request.tokens), len(request.readouts.rows)
        rows = self.first(len(plan.groups) + len(plan.branches))
        units = {
            sublayer: [unit for unit in request.units if unit.sublayer == sublayer] for sublayer in model.sublayers
        }
        #: Components in the order in which they are read, and where each is.
        self.order = [component for sublayer in model.sublayers for component in (sublayer, *units[sublayer])]
        self.column = {component: number for number, component in enumerate(self.order)}
        self.reads = {
            sublayer: _UnitReads(model, request, model.projection(sublayer), here)
            for sublayer, here in units.items()
            if here
        }
        #: [component, prompt, row, readout] ⟨y_c, a⟩.
        self.read = torch.zeros(len(self.order), prompts, rows, readouts, dtype=wide, device=model.device)
        for sublayer in model.sublayers:
            self._read_output(sublayer, slice(None), clean.values[sublayer][:, None])
        for reads in self.reads.values():
            values = clean.values[reads.site][:, None]
            projected = reads.projection.apply(values) if reads.projection.norm is not None else None
            self._store(reads.units, slice(None), reads.read(values, projected))
        #: [prompt, row, width] δ, what a row's overrides change at the final position.
        self.delta = torch.zeros(prompts, rows, model.width, dtype=wide, device=model.device)
        #: [prompt, row, readout] of residual streams inside the network, and of δ below them.
        self.inner = torch.zeros(prompts, rows, readouts, dtype=wide, device=model.device)
        self.inner_delta = torch.zeros_like(self.inner)
        self.final: Tensor | None = None
        self.branches = Branches(model, plan, prompts, request.patches)
        #: What the branches' layers and their units read: components, the rows, and [prompt, row, component, readout].
        self.branch_reads: list[tuple[Sequence[Component], Tensor, Tensor]] = []
        #: At the layer that computes now: units' values, the projection's output, and what overrides change in it.
        self._values: Tensor | None = None
        self._projection_output: Tensor | None = None
        self._changes: dict[int, Tensor] = {}

    def first(self, group: int) -> int:
        """The first row of a group or a branch; how many rows there are before it."""
        return 0 if group == 0 else 1 + (group - 1) * self.request.patches

    def rows(self, groups: Sequence[int]) -> slice | Tensor:
        """The rows of some groups."""
        if list(groups) == list(range(groups[0], groups[0] + len(groups))):
            return slice(self.first(groups[0]), self.first(groups[-1] + 1))
        each = [torch.arange(self.first(group), self.first(group + 1)) for group in groups]
        return torch.cat(each).to(self.model.device)

    def parents(self, groups: Sequence[int]) -> Tensor | None:
        """The row that each row of some groups branches off; None where all branch off the clean run."""
        above = [self.plan.groups[group].parent for group in groups]
        if not any(above):
            return None
        patches = torch.arange(self.request.patches, device=self.model.device)
        return torch.cat([patches + self.first(parent) if parent else 0 * patches for parent in above])

    def site(self, sublayer: Component) -> Component | None:
        """Where the units of `layer` stand, if any is overridden or read."""
        units = [
            c
            for c in (*self.plan.events[sublayer].writes, *self.order, *self.branches.frozen_units(sublayer))
            if c.is_unit
        ]
        return next((unit.site for unit in units if unit.sublayer == sublayer), None)

    def start_stage(self, stage: int) -> None:
        """Before anything of a stage is read: the groups that start there take over what their parents have."""
        starting = [number for number, group in enumerate(self.plan.groups) if group.start == stage]
        if not starting or (parents := self.parents(starting)) is None:
            return
        rows = self.rows(starting)
        before = sum(self.model.stage(component) < stage for component in self.order)
        self.read[:before, :, rows] = self.read[:before, :, parents]
        for each in (self.delta, self.inner, self.inner_delta):
            each[:, rows] = each[:, parents]

    def read_stream(self, block: int, residual: Tensor) -> None:
        """Read the residual streams that enter a block, where anything is read there."""
        for readout in self.request.readouts.read_before(block):
            read = residual.to(self.inner.dtype) @ self.request.readouts.directions[:, :, readout, None]
            # Rows that haven't joined have their parents' streams; the clean run's where that is the parent.
            self.inner[:, residual.shape[1] :, readout] = read[:, :1, 0]
            self.inner[:, : residual.shape[1], readout] = read[..., 0]

    def keep_units(self, sublayer: Component, values: Tensor) -> None:
        """Keep what all units of `layer` hand on, `[prompt, row, columns]`, until the layer is read."""
        self._values = values if sublayer in self.reads or self.branches.frozen_units(sublayer) else None

    def keep_projected(self, sublayer: Component, output: Tensor) -> None:
        """Keep what the projection of `layer` gives, `[prompt, row, width]`, where a norm follows it."""
        self._projection_output = output

    def add_change(self, component: Component, group: int, change: Tensor) -> None:
        """Add what a group's override changes at the final position, `[prompt, patch, columns]`, to its δ."""
        if not component.is_unit:
            self._add(component, group, change)
            return
        projected = self.model.projection(component.sublayer).projected(change, component.unit)
        before = self._changes.get(group)
        self._changes[group] = projected if before is None else before + projected

    def _add(self, sublayer: Component, group: int, change: Tensor) -> None:
        rows = slice(self.first(group), self.first(group + 1))
        self.delta[:, rows] += change * self.model.residual_scale
        if self.request.readouts.blocks:
            self.inner_delta[:, rows] += self._read(sublayer, change)

    def read_reactions(self, sublayer: Component, flying: Tensor) -> None:
        """Read what `layer` would write, `[prompt, row, width]`, before it is overwritten: for the branches."""
        for found in self.branches.react(sublayer, flying, self._values, self._projection_output):
            self.branch_reads.append(([sublayer], found.rows, self._read(sublayer, found.output)[:, :, None]))
            if (reads := self.reads.get(sublayer)) is not None:
                assert found.values is not None
                self.branch_reads.append((reads.units, found.rows, reads.read(found.values, found.projected)))

    def read_sublayer(self, sublayer: Component, flying: Tensor, fresh: Tensor) -> None:
        """Read a layer, once it has written.

        Args:
            flying: `[prompt, row, width]` its output in the rows that were on their way.
            fresh: the same of those that start with an override of it or of its units.
        """
        events = self.plan.events[sublayer]
        count = flying.shape[1]
        self._read_output(sublayer, slice(1, count), flying[:, 1:])
        if events.starting:
            self._read_output(sublayer, self.rows(events.starting), fresh)
        if (reads := self.reads.get(sublayer)) is not None:
            values, output = self._values, self._projection_output
            assert values is not None
            read = reads.read(values[:, 1:], None if output is None else output[:, 1:])
            self._store(reads.units, slice(1, count), read[:, : count - 1])
            if events.at_units:
                self._store(reads.units, self.rows(events.at_units), read[:, count - 1 :])
            self._inherit(reads.units, events.at_output)
        self._inherit([component for component in self.order if component.sublayer == sublayer], events.elsewhere)
        self._freeze_units(sublayer)
        self._add_unit_changes(sublayer)
        self._values = self._projection_output = None

    def _freeze_units(self, sublayer: Component) -> None:
        """Where `layer` is frozen, so are its units, whatever they would hand on."""
        frozen = [group for group, frozen in self.plan.events[sublayer].writes.get(sublayer, []) if frozen]
        if frozen and sublayer in self.reads:
            for unit in self.reads[sublayer].units:
                column = self.read[self.column[unit]]
                column[:, self.rows(frozen)] = column[:, :1].clone()

    def _add_unit_changes(self, sublayer: Component) -> None:
        """Add to δ what overrides of units change in the output of `layer`, through the norm where there is one."""
        output = self._projection_output
        for group, change in self._changes.items():
            if output is not None:
                projection, clean = self.model.projection(sublayer), output[:, :1].to(change.dtype)
                change = projection.apply_norm(clean + change) - projection.apply_norm(clean)
            self._add(sublayer, group, change)
        self._changes = {}

    def _inherit(self, components: Sequence[Component], groups: Sequence[int]) -> None:
        """Rows that don't pass through here have what their parents have."""
        if groups and (parents := self.parents(groups)) is not None:
            for component in components:
                column = self.read[self.column[component]]
                column[:, self.rows(groups)] = column[:, parents]

    def _read(self, sublayer: Component, output: Tensor) -> Tensor:
        """`[prompt, row, readout]` what each readout sees of a layer's output."""
        read = self.request.readouts.read(output) * self.model.residual_scale
        below = self.request.readouts.belongs(sublayer)
        return read if below is None else read * below

    def _read_output(self, sublayer: Component, rows: slice | Tensor, output: Tensor) -> None:
        self.read[self.column[sublayer]][:, rows] = self._read(sublayer, output)

    def _store(self, units: Sequence[Component], rows: slice | Tensor, read: Tensor) -> None:
        """Keep `[prompt, row, unit, readout]`."""
        for number, unit in enumerate(units):
            self.read[self.column[unit]][:, rows] = read[:, :, number]

    def finish(self, residual: Tensor) -> None:
        """Keep the final residual streams, `[prompt, row, width]`, and let the runs that are read as branches end.

        Each is its base but for what its layer writes.
        """
        branches = self.branches
        if not branches.each:
            self.final = residual
            return
        added, base = branches.change.to(residual.dtype), branches.base
        self.final = torch.cat([residual, residual[:, base] + added], 1)
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
        """What was measured, the runs in the order of the request."""
        assert self.final is not None
        request, readouts = self.request, self.request.readouts
        patches = torch.arange(request.patches, device=self.model.device)
        rows = torch.cat([patches + self.first(group) if group else 0 * patches for group in self.plan.index])
        final, clean = self.final.to(self.delta.dtype), self.clean.final.to(self.delta.dtype)
        scale, own_scale = final_scale(self.model, clean), final_scale(self.model, final)

        def logit(residual: Tensor, inner: Tensor) -> Tensor:
            """`[prompt, row, readout]` of whole runs."""
            own = final_scale(self.model, residual)
            through = readouts.read(residual) / own[..., None] + readouts.constants[:, None]
            return torch.where(readouts.final, through, inner)

        clean_logit = logit(clean[:, None], self.inner[:, :1])
        logits = logit(final, self.inner)
        # Where nothing changed, as before the last position, other rounding in a row of its own is no effect.
        still = ((self.delta == 0).all(-1) & (self.inner_delta == 0).all(-1))[..., None]
        direct = torch.where(
            still, clean_logit, logit(clean[:, None] + self.delta, self.inner[:, :1] + self.inner_delta)
        )
        indirect = torch.where(still, logits, logit(final - self.delta, self.inner - self.inner_delta))
        order = [self.column[component] for component in (*self.model.sublayers, *request.units)]
        read = readouts.rescale(self.read[order], scale[:, None].expand(-1, self.read.shape[2]))

        def by_run(values: Tensor) -> Tensor:
            return values[:, rows].movedim(-1, 0).unflatten(2, (-1, request.patches))

        metrics, run_metrics = self._metrics(rows)
        return Readings(
            unembed=read[:, :, 0].permute(2, 1, 0),
            embed=readouts.rescale(readouts.read(self.clean.embed[:, None])[:, 0], scale).T,
            logit=clean_logit[:, 0].T,
            unembed_ablated=read[:, :, rows].permute(3, 1, 2, 0).unflatten(2, (-1, request.patches)),
            logit_ablated=by_run(logits),
            logit_direct=by_run(direct),
            logit_indirect=by_run(indirect),
            scale=(scale[:, None] / own_scale)[:, rows].unflatten(1, (-1, request.patches)),
            metrics=metrics,
            metrics_ablated=run_metrics,
            clean_error=(logits[:, :1] - clean_logit).abs().max(),
        )

    def _metrics(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The metrics of the clean run `[metric, prompt]`, and of every run `[metric, prompt, run, patch]`."""
        assert self.final is not None
        request, shape = self.request, (len(self.request.overrides), self.request.patches)
        if not request.metrics:
            return self.delta.new_zeros(0, len(request.tokens)), self.delta.new_zeros(0, len(request.tokens), *shape)
        each = [
            evaluate(self.model, request.metrics, final, clean, int(target))
            for final, clean, target in zip(self.final, self.final[:, 0], request.targets, strict=True)
        ]
        values = torch.stack(each, 1)
        return values[:, :, 0], values[:, :, rows].unflatten(2, shape)


class _UnitReads:
    """The readings of some heads or neurons of one layer: an elementwise product, or a small one, and no projection."""

    def __init__(
        self, model: LanguageModel, request: Request, projection: Projection, units: Sequence[Component]
    ) -> None:
        self.site = units[0].site
        self.units = units
        self.projection = projection
        directions = request.readouts.directions * model.residual_scale
        below = request.readouts.belongs(units[0])
        directions = directions if below is None else directions * below
        pulled = projection.read_vector(directions.mT).mT
        #: Which columns are read: those of the units, side by side, in the order in which the units are asked for.
        every = torch.arange(projection.units * projection.width)
        columns = torch.cat([every[projection.columns(u.unit)] for u in units])
        self.all_in_order = torch.equal(columns, every)
        self.columns = columns.to(model.device)
        self.weights = pulled[:, self.columns]
        if projection.width > 1:
            # [prompt, column, unit · readout]: block by block, so that one product reads all units.
            prompts, _, readouts = self.weights.shape
            blocks = self.weights.new_zeros(prompts, len(units), projection.width, len(units), readouts)
            each = range(len(units))
            blocks[:, each, :, each] = self.weights.unflatten(1, (len(units), -1)).transpose(0, 1)
            self.weights = blocks.flatten(3).flatten(1, 2)

    def read(self, values: Tensor, projected: Tensor | None) -> Tensor:
        """`[prompt, row, unit, readout]` ⟨y, a⟩, from all units' values and, with a norm, the projection's output."""
        values = values.to(self.weights.dtype)
        if not self.all_in_order:
            values = values[..., self.columns]
        if self.projection.width > 1:
            read = (values @ self.weights).unflatten(-1, (len(self.units), -1))
        else:
            read = values[..., None] * self.weights[:, None]
        if projected is None:
            return read
        return read / self.projection.scale(projected.to(read.dtype))[..., None, None]
