"""Run plain forward passes of transformers' own model, each prompt alone, with plain hooks.

Nothing of the engines is used: only the names of modules are taken from hydrascope, and every pass must add up.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hydrascope.components.component import Component
from hydrascope.models.language_model import LanguageModel

#: From a label to positions and `[position, columns]`, what a component writes there instead.
Writes = Mapping[str, tuple[Sequence[int], Tensor]]
#: Columns of a module's output, at every position.
Inside = Sequence[tuple[nn.Module, slice, Tensor]]


@dataclass(frozen=True)
class Pass:
    """One forward pass of one prompt.

    Attributes:
        values: by label of a sublayer, `[position, width]` what it adds; by `head.L` and `neuron.L`, the input of the
            projection.
        inside: what modules that were asked for put out, `[position, columns]`.
        streams: `[block, width]` the residual stream that enters each block at the last position.
        final: `[position, width]` the residual stream before the final norm.
        logits: `[position, vocabulary]` before any soft-cap.
        capped: `[position, vocabulary]` the model's own.
    """

    values: dict[str, Tensor]
    inside: dict[nn.Module, Tensor]
    streams: Tensor
    final: Tensor
    logits: Tensor
    capped: Tensor


class Oracle:
    """A float64 copy of a model in evaluation mode, for plain passes alone."""

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
        return run.values[f"{component.kind}.{component.block}"][:, self.columns(component)]

    @torch.no_grad()
    def run(
        self, tokens: Sequence[int], writes: Writes | None = None, inside: Inside = (), watched: Sequence = ()
    ) -> Pass:
        """Run a prompt alone, by a model that no pass before has left anything in."""
        self._forget()
        values: dict[str, Tensor] = {}
        seen: dict[nn.Module, Tensor] = {}
        found: dict[Any, Tensor] = {}
        writes = writes or {}
        by_site: dict[str, list[tuple[slice, Sequence[int], Tensor]]] = {}
        for label, (positions, value) in writes.items():
            component = Component.parse(label)
            if component.is_unit:
                place = (self.columns(component), positions, value)
                by_site.setdefault(f"{component.kind}.{component.block}", []).append(place)

        def on_output(label: str) -> Callable:
            def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
                tensor = (output[0] if isinstance(output, tuple) else output).clone()
                rows = tensor.view(-1, tensor.shape[-1])
                if label in writes:
                    positions, value = writes[label]
                    rows[list(positions)] = value
                values[label] = rows.clone()
                return (tensor, *output[1:]) if isinstance(output, tuple) else tensor

            return hook

        def on_projection(site: str) -> Callable:
            def hook(module: nn.Module, inputs: Any) -> Any:
                tensor = inputs[0].clone()
                rows = tensor.view(-1, tensor.shape[-1])
                for columns, positions, value in by_site.get(site, []):
                    rows[list(positions), columns] = value
                values[site] = rows.clone()
                return (tensor, *inputs[1:])

            return hook

        def on_inside(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            tensor = output.clone()
            rows = tensor.view(-1, tensor.shape[-1])
            for other, columns, value in inside:
                if other is module:
                    rows[:, columns] = value
            seen[module] = rows.clone()
            return tensor

        def on_block(number: int) -> Callable:
            def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
                found[number] = (args[0] if args else kwargs["hidden_states"])[0, -1].clone()

            return hook

        def keep(name: str) -> Callable:
            def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
                found[name], found[f"{name} out"] = inputs[0][0].clone(), output[0].clone()

            return hook

        handles = [self.names.final_norm.register_forward_hook(keep("final"))]
        handles += [self.names.unembedding.register_forward_hook(keep("unembedding"))]
        handles += [module.register_forward_hook(on_output(label)) for label, module in self.outputs.items()]
        handles += [module.register_forward_pre_hook(on_projection(site)) for site, module in self.projections.items()]
        for number, block in enumerate(self.names.blocks):
            handles.append(block.register_forward_pre_hook(on_block(number), with_kwargs=True))
        for module in {*watched, *(module for module, *_ in inside)}:
            handles.append(module.register_forward_hook(on_inside))
        try:
            capped = self.hf(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0]
        finally:
            for handle in handles:
                handle.remove()
        streams = torch.stack([found[number] for number in range(len(self.names.blocks))])
        logits = capped
        if self.cap is not None:
            logits = found["unembedding out"]
            _require_close(self.cap * (logits / self.cap).tanh(), capped, "the soft-cap is the last thing")
        result = Pass(values, seen, streams, found["final"], logits, capped)
        added = torch.stack([values[label][-1] for label in self.outputs]).sum(0) * self.residual
        _require_close(streams[0] + added, result.final[-1], "sublayers add up to the final residual stream")
        return result

    def _forget(self) -> None:
        for name in self._varying:
            module: Any = self.hf.get_submodule(name)
            self.hf.set_submodule(name, type(module)(module.config))

    def logits_of(self, residual: Tensor) -> Tensor:
        """Return the logits `[vocabulary]` of a residual stream, before any soft-cap."""
        return self.names.unembedding(self.names.final_norm(residual)) * self._multiplier

    @property
    def _multiplier(self) -> float:
        if self.config.model_type == "granite":
            return 1 / float(self.config.logits_scaling)
        return float(self.config.logit_scale) if self.config.model_type == "cohere" else 1.0

    @torch.no_grad()
    def written(self, site: str, units: Sequence[Component], values: Tensor, norm: "Norm | None") -> Tensor:
        """Return the terms `[unit, width]` of a site's heads or neurons, given its `[columns]`."""
        module = self.projections[site]
        # The last row is of none: the projection's bias.
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
