"""Run plain forward passes of transformers' own model, each prompt alone, with plain hooks.

Nothing of the engines is used: only the names of modules are taken from hydrascope, and every pass must add up.
"""

import copy
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fuzz.recording import Change, Key, Recording
from hydrascope.components.component import Component
from hydrascope.models.language_model import LanguageModel

#: By label of a component, positions and the activation `[position, columns]` to write there.
Writes = Mapping[str, tuple[Sequence[int], Tensor]]
#: Columns of a module's output, and what to write there at every position.
ColumnWrites = Sequence[tuple[nn.Module, slice, Tensor]]


@dataclass(frozen=True)
class Pass:
    """One forward pass of one prompt.

    Attributes:
        values: `[position, columns]`: by label of a sublayer, its output; by site (`head.L`, `neuron.L`), the input of
            its projection; by watched module, its output.
        streams: `[block, width]` the residual stream that enters each block at the last position.
        final: `[position, width]` the residual stream before the final norm.
        logits: `[position, vocabulary]` before any soft-cap.
        capped: `[position, vocabulary]` the model's own, after any soft-cap.
    """

    values: dict[Key, Tensor]
    streams: Tensor
    final: Tensor
    logits: Tensor
    capped: Tensor


class Oracle:
    """A float64 copy of a model in evaluation mode, for plain passes alone.

    Attributes:
        names: the copy as hydrascope sees it, for the names of its modules.
        residual: the factor of each sublayer's output in the residual stream.
        cap: the soft-cap of logits, if there is one.
        outputs: by label of a sublayer, the module whose output it is.
        projections: by site (`head.L`, `neuron.L`), the module that projects heads or neurons to the stream.
    """

    def __init__(self, hf: Any) -> None:
        self.hf = copy.deepcopy(hf).eval().double()
        if self.hf._can_set_experts_implementation():
            self.hf.set_experts_implementation("eager")
        self.names = LanguageModel(self.hf)
        self.config = self.names.config
        self.residual = float(getattr(self.config, "residual_multiplier", 1.0))
        self.cap = getattr(self.config, "final_logit_softcapping", None)
        self.outputs = {str(each): self.names.output(each) for each in self.names.sublayers}
        self.projections: dict[str, nn.Module] = {}
        for each in self.names.sublayers:
            if self.names.is_dense(each):
                kind = "head" if each.kind == "attn" else "neuron"
                self.projections[f"{kind}.{each.block}"] = self.names.projection(each).module
        self.heads = int(self.config.num_attention_heads)
        # Modules whose rotary tables depend on the passes before.
        self._varying = [
            name
            for name, module in self.hf.named_modules()
            if any(kind in str(getattr(module, "rope_type", "")) for kind in ("dynamic", "longrope"))
        ]

    def columns(self, unit: Component) -> slice:
        """Return the columns of a head or neuron in the input of its projection."""
        if unit.kind == "neuron":
            return slice(unit.unit, unit.unit + 1)
        module: Any = self.projections[f"head.{unit.block}"]
        size = module.weight.numel() // self.names.width // self.heads
        return slice(unit.unit * size, (unit.unit + 1) * size)

    def value(self, run: Pass, label: str) -> Tensor:
        """Return a component's activation in a pass, `[position, columns]`."""
        component = Component.parse(label)
        if not component.is_unit:
            return run.values[label]
        return run.values[site_of(component)][:, self.columns(component)]

    @torch.no_grad()
    def run(
        self,
        tokens: Sequence[int],
        writes: Writes | None = None,
        column_writes: ColumnWrites = (),
        watched: Sequence[nn.Module] = (),
    ) -> Pass:
        """Run a prompt alone, by a model in which no earlier pass has left anything.

        Raises:
            NoSuchModelError: The outputs of the model's modules don't add up.
        """
        self._forget()
        recording = Recording(self._changes(writes or {}, column_writes))
        with self._hooked(recording, {*watched, *(module for module, *_ in column_writes)}):
            capped = self.hf(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0]
        return self._checked(recording, capped)

    def _changes(self, writes: Writes, column_writes: ColumnWrites) -> dict[Key, list[Change]]:
        found: dict[Key, list[Change]] = defaultdict(list)
        for label, (positions, value) in writes.items():
            component = Component.parse(label)
            if component.is_unit:
                found[site_of(component)].append((list(positions), self.columns(component), value))
            else:
                found[label].append((list(positions), slice(None), value))
        for module, columns, value in column_writes:
            found[module].append((slice(None), columns, value))
        return found

    @contextmanager
    def _hooked(self, recording: Recording, watched: Iterable[nn.Module]) -> Iterator[None]:
        """Hold the hooks of a recording in the model."""
        names = self.names
        outputs = {"unembedding": names.unembedding, **self.outputs, **{module: module for module in watched}}
        inputs = {"final": names.final_norm, **self.projections}
        handles = [module.register_forward_hook(partial(recording.output_hook, key)) for key, module in outputs.items()]
        for key, module in inputs.items():
            handles.append(module.register_forward_pre_hook(partial(recording.input_hook, key)))
        for number, block in enumerate(names.blocks):
            handles.append(block.register_forward_pre_hook(partial(recording.stream_hook, number), with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _checked(self, recording: Recording, capped: Tensor) -> Pass:
        """Return the pass of a recording, if its parts add up to the whole."""
        values, logits = recording.values, capped
        if self.cap is not None:
            logits = values["unembedding"]
            _require_close(self.cap * (logits / self.cap).tanh(), capped, "the soft-cap is the last thing")
        streams = torch.stack([recording.streams[number] for number in range(len(self.names.blocks))])
        added = torch.stack([values[label][-1] for label in self.outputs]).sum(0) * self.residual
        _require_close(streams[0] + added, values["final"][-1], "sublayers add up to the final residual stream")
        return Pass(values, streams, values["final"], logits, capped)

    def _forget(self) -> None:
        """Make anew the rotary tables that earlier passes may have changed."""
        for name in self._varying:
            module: Any = self.hf.get_submodule(name)
            self.hf.set_submodule(name, type(module)(module.config))

    def logits_of(self, residual: Tensor) -> Tensor:
        """Return the logits `[vocabulary]` of a residual stream, before any soft-cap."""
        return self.names.unembedding(self.names.final_norm(residual)) * self.multiplier

    @property
    def multiplier(self) -> float:
        """Return the factor of the logits, after the unembedding."""
        if self.config.model_type == "granite":
            return 1 / float(self.config.logits_scaling)
        return float(self.config.logit_scale) if self.config.model_type == "cohere" else 1.0

    @torch.no_grad()
    def written(self, site: str, units: Sequence[Component], values: Tensor, norm: "Norm | None") -> Tensor:
        """Return the terms `[unit, width]` of a site's heads or neurons, given its `[columns]`."""
        module = self.projections[site]
        # The last row is without any unit: it gives the projection's bias.
        alone = values.new_zeros(len(units) + 1, len(values))
        for row, unit in zip(alone, units, strict=False):
            row[self.columns(unit)] = values[self.columns(unit)]
        projected = module(alone)
        projected = projected[:-1] - projected[-1]
        if norm is not None:
            projected = norm.linear(projected, norm.scale(module(values[None])[0]))
        return projected * self.residual

    def norm_after(self, site: str) -> "Norm | None":
        """Return the norm between a projection and the residual stream, if there is one."""
        sublayer = site.replace("head", "attn").replace("neuron", "mlp")
        output, module = self.outputs[sublayer], self.projections[site]
        if any(part is module for part in output.modules()):
            return None
        return Norm(output, self.names.width)


def site_of(unit: Component) -> str:
    """Return the site of a head or neuron, `head.L` or `neuron.L`: the input of a projection."""
    return f"{unit.kind}.{unit.block}"


class Norm:
    """The formula of a norm, found by trying.

    Attributes:
        centres: whether it subtracts the mean.
        gain: `[width]` its weight, with 1 added where the model does so.
    """

    @torch.no_grad()
    def __init__(self, module: Any, width: int) -> None:
        sample = torch.linspace(-1, 2, width, dtype=torch.float64) ** 3 + 0.3
        weight = getattr(module, "weight", None)
        bias = getattr(module, "bias", None)
        weight = torch.ones(width, dtype=torch.float64) if weight is None else weight.detach()
        self.bias = torch.zeros(width, dtype=torch.float64) if bias is None else bias.detach()
        names = ("variance_epsilon", "eps", "epsilon")
        self.eps = next(float(getattr(module, name)) for name in names if hasattr(module, name))
        for self.centres in (False, True):
            for offset in (0.0, 1.0):
                self.gain = weight + offset
                if torch.allclose(self(sample), module(sample), rtol=1e-12, atol=1e-12):
                    return
        raise AssertionError(f"{type(module).__name__} is a norm of another kind")

    def __call__(self, x: Tensor) -> Tensor:
        return self.linear(x, self.scale(x)) + self.bias

    def linear(self, x: Tensor, scale: Tensor) -> Tensor:
        """Norm vectors `[…, width]` at a given scale, without the bias."""
        return self._centred(x) * self.gain / scale

    def scale(self, x: Tensor) -> Tensor:
        return (self._centred(x).square().mean(-1) + self.eps).sqrt()

    def _centred(self, x: Tensor) -> Tensor:
        return x - x.mean(-1, keepdim=True) if self.centres else x


def _require_close(found: Tensor, expected: Tensor, what: str) -> None:
    error = (found - expected).abs().max()
    if not error <= 1e-9 * expected.abs().max().clamp_min(1.0):
        raise NoSuchModelError(f"{what}: off by {error:.1e}")


class NoSuchModelError(Exception):
    """The outputs of the modules don't add up: hydrascope isn't for this model."""
