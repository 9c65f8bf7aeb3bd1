"""The wavefront engine: all ablated runs of many prompts as one pass over the layers.

An ablation replaces what one component writes at the final position. Attention is causal, so no earlier position
ever changes: every ablated run shares the prompt's keys and values, and what is left of it is one token's path from
the ablated component to the top, a *row*. Rows of all components, patches and prompts go through a layer together;
at each component, the rows that ablate it join in, starting from the clean run's residual stream (row 0). Nothing
upstream of an ablation is recomputed, weights are read once, and a component's effect is one dot product.

The model's own blocks do the computing. Hooks widen `[prompt, 1, width]`, the last token of each prompt, to
`[prompt, row, width]`: rows at one and the same position, so that what the model computes per position (rotary
embeddings) broadcasts over them.
"""

from functools import partial

import torch
from torch import Tensor

from hydrascope.components import Component
from hydrascope.engines.attention import Prefix, attending, causal_attention, row_attention
from hydrascope.engines.clean import CleanRun, clean_run
from hydrascope.engines.hooks import by_prompt, hooked, on_input, on_output
from hydrascope.engines.kernels import fast_kernels
from hydrascope.engines.rows import CLEAN, Effects, Request
from hydrascope.engines.schedule import Write, schedule
from hydrascope.model import LanguageModel, padded, wider
from hydrascope.readout import Readout


@torch.no_grad()
def measure(model: LanguageModel, request: Request) -> Effects:
    """Run the plan of `request` on all of its prompts in one sweep over the layers; see `Effects`."""
    ids, last = padded(request.tokens, model.device)
    prefix = Prefix(last)
    with fast_kernels(model):
        with attending(model, causal_attention(prefix)):
            clean = clean_run(model, request.tokens)
        sweep = _Sweep(model, request, clean)
        with attending(model, row_attention(prefix)), hooked(sweep.hooks()):
            model.hf.base_model(input_ids=ids.gather(1, last[:, None]), position_ids=last[:, None], use_cache=False)
    return sweep.effects()


class _Sweep:
    """The state of one sweep: how many rows have joined, and what has been read off them."""

    def __init__(self, model: LanguageModel, request: Request, clean: CleanRun) -> None:
        self.model = model
        self.request = request
        self.clean = clean
        self.schedule = schedule(request.rows)
        self.index = {component: i for i, component in enumerate(model.components)}
        self.readout = Readout.of(model, request.targets)
        self.scale = self.readout.scale(clean.final)
        self.joined = 1
        wide = wider(model.dtype)
        prompts, rows = len(request.tokens), self.schedule.rows
        #: [prompt, place, component] ⟨y_c, a⟩; a row's upstream components are the clean run's.
        self.read = self.readout.unscaled(clean.written)[:, None].repeat(1, rows, 1)
        #: [prompt, place, width] δ, what the overrides of a row change.
        self.delta = torch.zeros(prompts, rows, model.width, dtype=wide, device=model.device)
        #: δ of the rows that join at the next block, and the final residual stream of all rows.
        self.pending: Tensor | None = None
        self.final: Tensor | None = None

    def hooks(self) -> list:
        """The hooks of the sweep, on every block, attention and MLP, and the final norm."""
        handles = [on_input(self.model.final_norm, self._finish)]
        for number, layer in enumerate(self.model.layers):
            attn, mlp = Component(number, "attn"), Component(number, "mlp")
            handles += [
                on_input(layer, partial(self._enter, attn)),
                on_input(self.model.attention(number), partial(self._narrow, attn)),
                on_output(self.model.site(attn), partial(self._write, attn)),
                on_output(self.model.site(mlp), partial(self._write, mlp)),
            ]
        return handles

    def _joins_inside(self, component: Component) -> int:
        """How many rows join inside the block: those that ablate attention, where the MLP reads what it wrote.

        All others (ablated MLPs, and attention of parallel blocks) differ from the clean run only after the block,
        and join at the next one: they cost nothing before.
        """
        if component.kind == "mlp" or self.model.parallel:
            return 0
        first, last = self.schedule.starts.get(component, (0, 0))
        return last - first

    def _enter(self, attn: Component, hidden: Tensor) -> Tensor:
        """Before a block: join the rows of the block before, and hold places for those that join inside."""
        hidden = self._join_pending(hidden)
        held = self._joins_inside(attn)
        return torch.cat([hidden, hidden[:, :1].expand(-1, held, -1)], dim=1) if held else hidden

    def _join_pending(self, hidden: Tensor) -> Tensor:
        if self.pending is None:
            return hidden
        joining = (hidden[:, :1] + self.pending).to(hidden.dtype)
        self.joined += joining.shape[1]
        self.pending = None
        return torch.cat([hidden, joining], dim=1)

    def _narrow(self, attn: Component, hidden: Tensor) -> Tensor | None:
        """Before attention: rows that ablate it need no attention."""
        return hidden[:, : self.joined].contiguous() if self._joins_inside(attn) else None

    def _write(self, component: Component, hidden: Tensor) -> Tensor | None:
        """After a component: overwrite what the overriding rows write, and read every row."""
        output = by_prompt(hidden, len(self.request.tokens))
        widened = None
        if held := self._joins_inside(component):
            widened = output = torch.cat([output, output[:, :1].expand(-1, held, -1)], dim=1)
            self.joined += held
        write = self.schedule.writes.get(component)
        late: list[int] = []
        if write is not None:
            values = self._values(component, write)
            change = values.to(self.delta.dtype) - self._clean(component).to(self.delta.dtype)
            self.delta[:, write.places] += change
            now = [i for i, place in enumerate(write.places) if place < self.joined]
            late = [i for i, place in enumerate(write.places) if place >= self.joined]
            if now:
                places = [write.places[i] for i in now]
                output[:, places] = values[:, now] / self.model.residual_scale
            if late:
                self._postpone(component, [write.places[i] for i in late], change[:, late])
        index = self.index[component]
        self.read[:, : self.joined, index] = self.readout.unscaled(output) * self.model.residual_scale
        if late and write is not None:
            self.read[:, [write.places[i] for i in late], index] = self.readout.unscaled(values[:, late])
        return widened

    def _postpone(self, component: Component, places: list[int], change: Tensor) -> None:
        """Let the rows at `places` join at the next block, their residual stream changed by `change`."""
        block = [Component(component.layer, "attn"), Component(component.layer, "mlp")]
        if self.pending is None:
            ends = [self.schedule.starts[part][1] for part in block if part in self.schedule.starts]
            self.pending = change.new_zeros(len(change), max(ends) - self.joined, change.shape[-1])
        self.pending[:, [place - self.joined for place in places]] += change

    def _clean(self, component: Component) -> Tensor:
        return self.clean.written[:, self.index[component], None]

    def _values(self, component: Component, write: Write) -> Tensor:
        """`[prompt, override, width]` what the overrides of `component` write."""
        values = []
        if any(value is not CLEAN for value in write.values):
            values.append(self.request.patches[component].to(self.model.device))
        values.append(self._clean(component))
        pool = torch.cat(values, dim=1)
        clean = pool.shape[1] - 1
        return pool[:, [clean if value is CLEAN else value for value in write.values]]

    def _finish(self, hidden: Tensor) -> Tensor:
        """Before the final norm: keep every row's residual stream, and let the clean run go on alone."""
        self.final = self._join_pending(hidden)
        return self.final[:, :1]

    def effects(self) -> Effects:
        """What was measured, the rows in the order of the plan."""
        assert self.final is not None
        places = list(self.schedule.place)
        final = self.final.to(self.delta.dtype)
        scale, constant = self.scale[:, None], self.readout.constant[:, None]
        own_scale, read = self.readout.scale(final), self.readout.unscaled(final)
        logits = read / own_scale + constant
        logit = self.readout.logit(self.clean.final)
        return Effects(
            unembed=(self.readout.unscaled(self.clean.written) / scale).cpu(),
            embed=(self.readout.unscaled(self.clean.embed) / self.scale).cpu(),
            logit=logit.cpu(),
            row_unembed=(self.read[:, places] / scale[..., None]).cpu(),
            row_logit=logits[:, places].cpu(),
            row_frozen=(read / scale + constant)[:, places].cpu(),
            row_direct=self.readout.logit(self.clean.final[:, None] + self.delta)[:, places].cpu(),
            row_indirect=self.readout.logit(final - self.delta)[:, places].cpu(),
            row_scale=(scale / own_scale)[:, places].cpu(),
            clean_error=float((logits[:, 0] - logit).abs().max()),
        )
