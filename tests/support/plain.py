"""What every number of a run must be, by plain forward passes of a tiny gpt2 or llama, with hooks of their own.

Nothing here is the engines': a prompt is run alone, with the model's own logits and its own final norm.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from tiny import tiny, tiny_tokenizer
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from hydrascope.components.component import Component
from hydrascope.models.language_model import LanguageModel

TEXTS = ("ab", "the cat", "a", "Hello, world", "xyz.", "no", "QRS tuv", "b")
#: Of at least two tokens, so that there is an earlier position.
LONGER = tuple(text for text in TEXTS if len(text) > 1)
HEADS = 4

#: From a label to `[slot, columns]`, what it writes at some positions instead.
Overrides = Mapping[str, tuple[Sequence[int], Tensor]]


def loaded(case: str = "llama", dtype: torch.dtype = torch.float64, seed: int = 0) -> LanguageModel:
    """A tiny random model with a tokenizer of single characters."""
    model = tiny(case, dtype, seed)
    model.tokenizer = tiny_tokenizer()
    # A model that is made, not read, is in training mode.
    model.hf.eval()
    return model


def exactly_normed(model: LanguageModel) -> LanguageModel:
    """`model`, its RMSNorms computed in its own dtype: transformers computes them in float32, whatever that is."""

    def in_own_dtype(norm: Any) -> Callable[[Tensor], Tensor]:
        return lambda x: norm.weight * x / (x.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()

    for module in model.hf.modules():
        if isinstance(module, LlamaRMSNorm):
            module.forward = in_own_dtype(module)
    return model


@dataclass(frozen=True)
class Plain:
    """One forward pass.

    Attributes:
        values: by label, `[position, columns]` what stands there: of a head or neuron, what it hands on.
        added: by label, `[width]` what it adds to the residual stream at the last position.
        streams: `[block, width]` the residual stream that enters each block at the last position, and the final one.
        normed: `[width]` what the final norm makes of it.
        logits: `[vocabulary]`.
    """

    values: dict[str, Tensor]
    added: dict[str, Tensor]
    streams: Tensor
    normed: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Parts:
    """The modules of a gpt2 or a llama."""

    layers: dict[str, nn.Module]
    projections: dict[str, nn.Module]
    final_norm: nn.Module

    @classmethod
    def of(cls, model: LanguageModel) -> "Parts":
        layers: dict[str, nn.Module] = {}
        projections: dict[str, nn.Module] = {}
        gpt2 = model.name == "gpt2"
        for number, block in enumerate(model.hf.transformer.h if gpt2 else model.hf.model.layers):
            attention = block.attn if gpt2 else block.self_attn
            layers |= {f"attn.{number}": attention, f"mlp.{number}": block.mlp}
            projections[f"attn.{number}"] = attention.c_proj if gpt2 else attention.o_proj
            projections[f"mlp.{number}"] = block.mlp.c_proj if gpt2 else block.mlp.down_proj
        return cls(layers, projections, model.hf.transformer.ln_f if gpt2 else model.hf.model.norm)

    def weight(self, layer: str) -> Tensor:
        """`[columns, width]` of a sublayer's projection: gpt2 keeps it so, a Linear the other way round."""
        module: Any = self.projections[layer]
        weight: Tensor = module.weight.detach()
        return weight.T if isinstance(module, nn.Linear) else weight

    def columns(self, component: Component) -> slice:
        """Where a head or neuron stands in the input of its sublayer's projection."""
        size = len(self.weight(str(component.sublayer))) // HEADS if component.kind == "head" else 1
        return slice(component.unit * size, (component.unit + 1) * size)


@torch.no_grad()
def plain_run(
    model: LanguageModel, tokens: Sequence[int], overrides: Overrides | None = None, units: Sequence[str] = ()
) -> Plain:
    """Run `tokens`, some components overridden, and note all sublayers and the `units` asked for."""
    parts, changes = Parts.of(model), overrides or {}
    values: dict[str, Tensor] = {}
    found: dict[str, Tensor] = {}
    noted = {Component.parse(label) for label in (*units, *changes) if Component.parse(label).is_unit}

    def on_layer(label: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple, output: Any) -> None:
            tensor = (output[0] if isinstance(output, tuple) else output)[0]
            if label in changes:
                positions, value = changes[label]
                tensor[list(positions)] = value
            values[label] = tensor.clone()

        return hook

    def on_projection(layer: str) -> Callable:
        def hook(module: nn.Module, inputs: tuple) -> tuple:
            tensor = inputs[0].clone()
            for component in noted:
                if str(component.sublayer) != layer:
                    continue
                if str(component) in changes:
                    positions, value = changes[str(component)]
                    tensor[0, list(positions), parts.columns(component)] = value
                values[str(component)] = tensor[0, :, parts.columns(component)].clone()
            return (tensor, *inputs[1:])

        return hook

    def on_norm(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        found["final"], found["normed"] = inputs[0][0, -1], output[0, -1]

    def on_embedding(module: nn.Module, inputs: tuple, kwargs: dict) -> None:
        found["embed"] = (inputs[0] if inputs else kwargs["hidden_states"])[0, -1].clone()

    handles = [parts.final_norm.register_forward_hook(on_norm)]
    handles += [model.blocks[0].register_forward_pre_hook(on_embedding, with_kwargs=True)]
    handles += [module.register_forward_hook(on_layer(label)) for label, module in parts.layers.items()]
    handles += [module.register_forward_pre_hook(on_projection(label)) for label, module in parts.projections.items()]
    logits = model.hf(torch.tensor([list(tokens)])).logits[0, -1]
    for handle in handles:
        handle.remove()
    added = {label: values[label][-1] for label in parts.layers}
    for part in noted:
        added[str(part)] = values[str(part)][-1] @ parts.weight(str(part.sublayer))[parts.columns(part)]
    blocks = [added[f"attn.{i}"] + added[f"mlp.{i}"] for i in range(len(model.blocks))]
    streams = torch.stack(list(accumulate([found["embed"], *blocks])))
    torch.testing.assert_close(streams[-1], found["final"])
    return Plain(values, added, streams, found["normed"], logits)


@dataclass(frozen=True)
class Reader:
    """One readout by its definition: ⟨vector, what the final norm gives⟩, or ⟨vector, the stream before a block⟩."""

    vector: Tensor
    before: int | None = None

    @classmethod
    def of_logit(cls, model: LanguageModel, plus: int, minus: int | None = None) -> "Reader":
        """The centred logit of a token, or the difference of two."""
        unembedding = model.hf.lm_head.weight.detach()
        return cls(unembedding[plus] - (unembedding.mean(0) if minus is None else unembedding[minus]))

    def whole(self, run: Plain) -> float:
        """What it reads of a run."""
        return float((run.normed if self.before is None else run.streams[self.before]) @ self.vector)

    def stream(self, model: LanguageModel, residual: Tensor) -> float:
        """What it reads of a residual stream, but for what is the same for all."""
        if self.before is not None:
            return float(residual @ self.vector)
        return float(self.parts(model, [], residual[None], sigma(model, residual))[0])

    def parts(self, model: LanguageModel, labels: Sequence[str], added: Tensor, scale: float) -> np.ndarray:
        """The contributions at the scale σ of components that add `[component, width]`; 0 above the readout."""
        if self.before is not None:
            return (added @ self.vector).numpy() * [self.below(label) for label in labels]
        gain: Any = Parts.of(model).final_norm.weight
        return (centred(model, added) @ (gain.detach() * self.vector)).numpy() / scale

    def below(self, label: str) -> bool:
        """Whether it reads what the component of this label writes."""
        return self.before is None or label == "embed" or Component.parse(label).block < self.before


def centred(model: LanguageModel, vectors: Tensor) -> Tensor:
    """`[…, width]` as the final norm takes it: LayerNorm removes the mean."""
    return vectors - vectors.mean(-1, keepdim=True) if model.name == "gpt2" else vectors


def sigma(model: LanguageModel, residual: Tensor) -> float:
    """The scale of the final norm."""
    return float((centred(model, residual).square().mean() + model.norm_eps).sqrt())


def quantities(
    model: LanguageModel, reader: Reader, clean: Plain, changes: Overrides, changed: Plain
) -> dict[str, float]:
    """`total`, `direct`, `indirect` and `scale` of one run with one patch.

    `changes` are its overrides, at ascending positions, those of what is frozen left out.
    """
    parts = Parts.of(model)
    last = len(next(iter(clean.values.values()))) - 1
    delta = torch.zeros(model.width, dtype=torch.float64)
    for label, (positions, value) in changes.items():
        if reader.below(label) and positions[-1] == last:
            component = Component.parse(label)
            difference = value[-1] - clean.values[label][-1]
            delta += (
                difference @ parts.weight(str(component.sublayer))[parts.columns(component)]
                if component.is_unit
                else difference
            )
    end = -1 if reader.before is None else reader.before
    z, z_k, before = clean.streams[end], changed.streams[end], reader.stream(model, clean.streams[end])
    return {
        "total": reader.whole(changed) - reader.whole(clean),
        "direct": reader.stream(model, z + delta) - before,
        "indirect": reader.stream(model, z_k - delta) - before,
        "scale": sigma(model, clean.streams[-1]) / sigma(model, changed.streams[-1]),
    }


def stage(label: str) -> int:
    """Attention, then the MLP, block by block: the blocks of gpt2 and llama are sequential."""
    component = Component.parse(label)
    return 2 * component.block + (component.kind in ("mlp", "neuron"))
