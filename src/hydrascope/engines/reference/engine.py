"""The reference engine: every run is a plain forward pass of the whole prompt, with hooks.

Slow, for any model, and obviously right: the oracle that the wavefront engine is tested against, and the fallback
for models that it can't carry. Each prompt is run alone, without padding; logits are read off the model's own, over
the whole vocabulary, and not through the readout direction; what a head or neuron writes is written out.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor

from hydrascope.components.component import Component, Override
from hydrascope.engines.clean.clean_pass import compute_clean_pass_at
from hydrascope.engines.interface import Readings, Request
from hydrascope.engines.metrics import evaluate
from hydrascope.engines.readouts import FINAL, Linear, final_scale
from hydrascope.engines.reference.frozen_inputs import freeze_head_inputs
from hydrascope.models.hooks import Handle, by_prompt, hooked, on_input, on_output, on_site
from hydrascope.models.language_model import LanguageModel, wider

#: Runs in one forward pass.
ROWS = 16

#: A run of the request, and the patch that its ablated components write.
Row = tuple[Override, int]


@torch.no_grad()
def measure(model: LanguageModel, request: Request) -> Readings:
    """Make the runs of `request` on each of its prompts by plain forward passes; see `Readings`."""
    with model.measuring():
        each = [_Prompt.of(model, request, prompt).readings() for prompt in range(len(request.tokens))]
    # The prompt follows the readout or metric where there is one.
    place = {"scale": 0}
    stacked = {
        field.name: torch.stack([getattr(readings, field.name) for readings in each], place.get(field.name, 1))
        for field in fields(Readings)
        if field.name != "clean_error"
    }
    return Readings(**stacked, clean_error=torch.stack([readings.clean_error for readings in each]).max())


@torch.no_grad()
def activations_before_override(
    model: LanguageModel, request: Request, sites: Sequence[Component]
) -> dict[Component, Tensor]:
    """What stands at `sites` in each run, before it is overwritten there: `[prompt, run, patch, slot, columns]`."""
    rows = [(override, patch) for override in request.overrides for patch in range(request.patches)]
    found: dict[Component, list[Tensor]] = {site: [] for site in sites}
    with model.measuring():
        for index in range(len(request.tokens)):
            prompt = _Prompt.of(model, request, index, sites)
            seen = [prompt.run_rows(rows[start : start + ROWS]) for start in range(0, len(rows), ROWS)]
            for site, each in found.items():
                each.append(torch.cat([one.before[site] for one in seen]).unflatten(0, (-1, request.patches)))
    return {site: torch.stack(each) for site, each in found.items()}


@dataclass(frozen=True)
class _Pass:
    """What forward passes of one prompt show at its final position, a row each.

    Attributes:
        values: what stands at each site.
        before: what would stand there, at the ablated positions.
        streams: the residual stream before each block that is read, and the final one.
        logits: the centred logits, before any soft-cap.
    """

    values: dict[Component, Tensor]
    before: dict[Component, Tensor]
    streams: dict[int, Tensor]
    logits: Tensor


@dataclass(frozen=True)
class _Prompt:
    """One prompt of a request: its clean values at every position, and the patches for it."""

    model: LanguageModel
    request: Request
    index: int
    sites: tuple[Component, ...]
    clean: dict[Component, Tensor]
    embed: Tensor
    patches: dict[Component, Tensor]

    @classmethod
    def of(cls, model: LanguageModel, request: Request, index: int, watch: Sequence[Component] = ()) -> "_Prompt":
        ablated = dict.fromkeys(component for override in request.overrides for component in override.ablated)
        frozen = [
            component for override in request.overrides for component in override.frozen if not component.is_input
        ]
        units = [component.site for component in (*request.units, *ablated, *frozen)]
        sites = tuple(dict.fromkeys((*model.sublayers, *units, *watch)))
        length = len(request.tokens[index])
        everywhere = torch.arange(length)
        run = compute_clean_pass_at(model, [request.tokens[index]], torch.zeros_like(everywhere), everywhere, sites)
        patches = {component: request.values(component)[index].to(model.device) for component in ablated}
        return cls(model, request, index, sites, run.values, run.embed[-1], patches)

    @property
    def readouts(self) -> list[Linear]:
        return list(self.request.readouts.rows)

    def readings(self) -> Readings:
        """What `Readings` says, without the prompt dimension."""
        model, request = self.model, self.request
        rows = [(override, patch) for override in request.overrides for patch in range(request.patches)]
        clean = self.run_rows([(Override(()), 0)])
        seen = [self.run_rows(rows[start : start + ROWS]) for start in range(0, len(rows), ROWS)]
        final, z = clean.streams[FINAL], torch.cat([each.streams[FINAL] for each in seen])
        sigma, own_sigma = final_scale(model, final), final_scale(model, z)
        delta = torch.stack([self.delta(row) for row in rows], 1)
        shape = (len(request.overrides), request.patches)
        target = int(request.targets[self.index])
        metrics = [evaluate(model, request.metrics, s, final[0], target) for s in (final, z)] if request.metrics else []

        def per_readout(read: Callable[[int, Linear], Tensor]) -> Tensor:
            return torch.stack([read(number, readout) for number, readout in enumerate(self.readouts)])

        def written(readout: Linear, seen: Sequence[_Pass]) -> Tensor:
            values = torch.cat([self.written(each) for each in seen])
            below = torch.tensor([readout.before == FINAL or c.block < readout.before for c in self.components])
            return self.dot(readout, values) * below / (sigma if readout.before == FINAL else 1)

        def logit(readout: Linear, seen: Sequence[_Pass]) -> Tensor:
            if readout.tokens is None:
                return self.read_logit(readout, torch.cat([each.streams[readout.before] for each in seen]))
            plus, minus = (None if tokens is None else int(tokens[self.index]) for tokens in readout.tokens)
            logits = torch.cat([each.logits for each in seen])
            return logits[:, plus] - (logits[:, minus] if minus is not None else logits.mean(-1))

        def shifted(readout: Linear, seen: Sequence[_Pass], sign: int) -> Tensor:
            below = delta[: 2 * readout.before].sum(0) if readout.before != FINAL else delta.sum(0)
            streams = torch.cat([each.streams[readout.before] for each in seen])
            read = self.read_logit(readout, streams.to(below.dtype) + sign * below)
            # Where nothing changed, rounding is no effect.
            return torch.where((below == 0).all(-1), logit(readout, seen), read).view(shape)

        unembed = per_readout(lambda _, readout: written(readout, [clean])[0])
        logits = per_readout(lambda _, readout: logit(readout, [clean])[0])
        read = per_readout(lambda _, readout: self.read_logit(readout, clean.streams[readout.before])[0])
        return Readings(
            unembed=unembed,
            embed=per_readout(
                lambda _, readout: self.dot(readout, self.embed) / (sigma[0] if readout.before == FINAL else 1)
            ),
            logit=logits,
            unembed_ablated=per_readout(lambda _, readout: written(readout, seen).view(*shape, -1)),
            logit_ablated=per_readout(lambda _, readout: logit(readout, seen).view(shape)),
            logit_direct=per_readout(lambda _, readout: shifted(readout, [clean], 1)),
            logit_indirect=per_readout(lambda _, readout: shifted(readout, seen, -1)),
            scale=(sigma / own_sigma).view(shape),
            metrics=metrics[0][:, 0] if metrics else sigma.new_zeros(0),
            metrics_ablated=metrics[1].view(-1, *shape) if metrics else sigma.new_zeros(0, *shape),
            clean_error=(read - logits).abs().max(),
        )

    @property
    def components(self) -> tuple[Component, ...]:
        return self.model.sublayers + self.request.units

    def dot(self, readout: Linear, vectors: Tensor) -> Tensor:
        return vectors.to(readout.direction.dtype) @ readout.direction[self.index]

    def read_logit(self, readout: Linear, stream: Tensor) -> Tensor:
        """The readout of whole residual streams."""
        read = self.dot(readout, stream)
        return (
            read if readout.before != FINAL else read / final_scale(self.model, stream) + readout.constant[self.index]
        )

    def written(self, seen: _Pass) -> Tensor:
        """`[row, component, width]` what each component adds to the residual stream."""
        wide = wider(self.model.dtype)
        each = []
        for component in self.components:
            values = seen.values[component.site]
            if component.is_unit:
                values = self.model.projection(component.sublayer).written(values, component.unit)
            each.append(values.to(wide) * self.model.residual_scale)
        return torch.stack(each, 1)

    def delta(self, row: Row) -> Tensor:
        """`[layer, width]` what the overrides of one row change in what each layer writes at the final position.

        As if nothing else had changed.
        """
        override, patch = row
        model, wide = self.model, wider(self.model.dtype)
        change = torch.zeros(len(model.sublayers), model.width, dtype=wide, device=model.device)
        at_last = (self.request.positions[self.index] == len(self.request.tokens[self.index]) - 1).nonzero()
        if not len(at_last):
            return change
        slot = int(at_last[0])
        for number, sublayer in enumerate(model.sublayers):
            components = [component for component in override.ablated if component.sublayer == sublayer]
            if sublayer in components:
                change[number] = self.patches[sublayer][patch, slot].to(wide) - self.clean[sublayer][-1].to(wide)
            elif components:
                projection = model.projection(sublayer)
                before = self.clean[components[0].site][-1]
                after = before.clone()
                for component in components:
                    after[projection.columns(component.unit)] = self.patches[component][patch, slot]
                outputs = [projection.apply_norm(projection.apply(values)).to(wide) for values in (before, after)]
                change[number] = outputs[1] - outputs[0]
        return change * model.residual_scale

    def run_rows(self, rows: Sequence[Row]) -> _Pass:
        """Copies of the prompt, each with the overrides of a row."""
        model, request = self.model, self.request
        values: dict[Component, Tensor] = {}
        before: dict[Component, Tensor] = {}
        streams: dict[int, Tensor] = {}
        normed = []

        def visit(site: Component, hidden: Tensor) -> Tensor:
            changed = hidden.clone()
            at = by_prompt(changed, len(rows))
            positions = request.positions[self.index].to(at.device)
            before[site] = at[:, positions].to(model.device)
            for number, (override, patch) in enumerate(rows):
                if site in override.frozen:
                    at[number] = self.clean[site]
                    continue
                for component in override.overridden:
                    if component.site != site:
                        continue
                    columns = model.columns(component)
                    if component in override.frozen:
                        at[number, :, columns] = self.clean[site][:, columns]
                    else:
                        at[number, positions, columns] = self.patches[component][patch].to(at.device)
            # A copy, on whichever device.
            values[site] = at[:, -1].clone().to(model.device)
            for number, (override, _) in enumerate(rows):
                if site.sublayer in override.frozen:
                    values[site][number] = self.clean[site][-1]  # a layer that is frozen, and all of its units
            return changed

        def keep(block: int, hidden: Tensor) -> None:
            streams[block] = by_prompt(hidden, len(rows))[:, -1].clone().to(model.device)

        def hooks() -> Iterator[Handle]:
            for block in request.readouts.blocks:
                yield on_input(model.blocks[block], partial(keep, block))
            yield on_input(model.final_norm, partial(keep, FINAL))
            yield on_output(model.final_norm, lambda hidden: normed.append(by_prompt(hidden, len(rows))[:, -1]))
            for site in self.sites:
                yield on_site(model, site, partial(visit, site))

        ids = torch.tensor([list(request.tokens[self.index])] * len(rows), device=model.device)
        held = [[component for component in override.frozen if component.is_input] for override, _ in rows]
        with freeze_head_inputs(model, request.tokens[self.index], held), hooked(hooks()):
            model.hf.base_model(input_ids=ids, use_cache=False)
        logits = model.unembedded(normed[0]).to(model.device, wider(model.dtype))
        return _Pass(values, before, streams, logits)
