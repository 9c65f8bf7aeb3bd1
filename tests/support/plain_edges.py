"""Edges by their definition: a reader's output is computed by itself, and overwritten in a plain forward pass.

Nothing here is the engines': a prompt is run alone, and the reader is called on the stream with the change in it.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np
import torch
from plain_terms import after, before, plain_model
from torch import Tensor, nn

import hydrascope as hs
from hydrascope.components.component import Component

HEADS = 4
BLOCKS = 3
EMBED = Component(0, "stream")


@dataclass(frozen=True)
class Names:
    """The module names of an architecture.

    Attributes:
        norms: the norm in front of attention and of the MLP; "" if there is none.
        sublayers: attention and the MLP.
        after: the norm that follows each; "" if there is none.
        heads: the projection from the heads.
        parallel: whether attention and the MLP read the same stream.
    """

    blocks: str = "model.layers"
    final: str = "model.norm"
    norms: tuple[str, str] = ("input_layernorm", "post_attention_layernorm")
    sublayers: tuple[str, str] = ("self_attn", "mlp")
    after: tuple[str, str] = ("", "")
    heads: str = "self_attn.o_proj"
    parallel: bool = False


_SHARED_NORM = ("input_layernorm", "input_layernorm")
_FOUR_NORMS = Names(
    norms=("input_layernorm", "pre_feedforward_layernorm"),
    after=("post_attention_layernorm", "post_feedforward_layernorm"),
)

NAMES = {
    "gpt2": Names("transformer.h", "transformer.ln_f", ("ln_1", "ln_2"), ("attn", "mlp"), heads="attn.c_proj"),
    "llama": Names(),
    "qwen3": Names(),
    "granite": Names(),
    "gemma2": _FOUR_NORMS,
    "gemma3_text": _FOUR_NORMS,
    "gpt_neox": Names(
        "gpt_neox.layers",
        "gpt_neox.final_layer_norm",
        sublayers=("attention", "mlp"),
        heads="attention.dense",
        parallel=True,
    ),
    "gpt_neox-sequential": Names(
        "gpt_neox.layers", "gpt_neox.final_layer_norm", sublayers=("attention", "mlp"), heads="attention.dense"
    ),
    "gptj": Names(
        "transformer.h", "transformer.ln_f", ("ln_1", "ln_1"), ("attn", "mlp"), heads="attn.out_proj", parallel=True
    ),
    "falcon-new": Names(
        "transformer.h",
        "transformer.ln_f",
        ("ln_attn", "ln_mlp"),
        ("self_attention", "mlp"),
        heads="self_attention.dense",
        parallel=True,
    ),
    "stablelm-parallel": Names(norms=_SHARED_NORM, parallel=True),
    "olmo2": Names(norms=("", ""), after=("post_attention_layernorm", "post_feedforward_layernorm")),
    "mixtral": Names(),
    "deepseek_v3": Names(),
    "cohere": Names(norms=_SHARED_NORM, parallel=True),
    "phi": Names(
        final="model.final_layernorm",
        norms=_SHARED_NORM,
        heads="self_attn.dense",
        parallel=True,
    ),
}


@dataclass
class Run:
    """One forward pass.

    Attributes:
        streams: the stream that enters each block, and the final one, `[position, width]`.
        outputs: by sublayer, `[position, width]` its output, after its post-norm.
        heads: by block, `[position, columns]` the outputs of all heads.
        given: by block, the other arguments of attention.
        logits: `[vocabulary]` at the last position, before any soft-cap.
    """

    streams: list[Tensor] = field(default_factory=list)
    outputs: dict[Component, Tensor] = field(default_factory=dict)
    heads: dict[int, Tensor] = field(default_factory=dict)
    given: dict[int, dict[str, Any]] = field(default_factory=dict)
    logits: Tensor = field(default_factory=lambda: torch.zeros(()))


class PlainEdges:
    """A tiny model, and its edges by the definition."""

    def __init__(self, case: str) -> None:
        self.model, self.names = plain_model(case), NAMES[case]
        self.hf: Any = self.model.hf
        if self.hf._can_set_experts_implementation():
            self.hf.set_experts_implementation("eager")  # others have no float64
        self.blocks: Any = self.hf.get_submodule(self.names.blocks)
        self.final: Any = self.hf.get_submodule(self.names.final)
        self.multiplier = getattr(self.hf.config, "residual_multiplier", 1.0)
        self.sublayers = [Component(block, kind) for block in range(BLOCKS) for kind in ("attn", "mlp")]

    def run(self, tokens: Sequence[int], outputs: Mapping[Component, Tensor] | None = None) -> Run:
        """Run a prompt; some sublayers' outputs, or the embeddings, are overwritten."""
        found, written = Run(), outputs or {}

        def on_stream(block: int, values: Tensor) -> Tensor | None:
            values = written.get(EMBED, values) if block == 0 else values
            found.streams.append(values)
            return values

        def on_output(sublayer: Component, values: Tensor) -> Tensor:
            found.outputs[sublayer] = written.get(sublayer, values).clone()
            # A copy: Falcon adds to its MLP's output in place.
            return found.outputs[sublayer].clone()

        def on_arguments(block: int) -> Callable:
            def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
                found.given[block] = {name: value for name, value in kwargs.items() if name != "hidden_states"}

            return hook

        with torch.no_grad(), ExitStack() as stack:
            for number, block in enumerate(self.blocks):
                before(stack, block, lambda values, number=number: on_stream(number, values))
                attention = block.get_submodule(self.names.sublayers[0])
                stack.callback(
                    attention.register_forward_pre_hook(on_arguments(number), with_kwargs=True).remove  # type: ignore[arg-type]
                )
                before(
                    stack,
                    block.get_submodule(self.names.heads),
                    lambda values, number=number: found.heads.__setitem__(number, values),
                )
                for kind in ("attn", "mlp"):
                    sublayer = Component(number, kind)
                    after(stack, self._output(sublayer), lambda values, sublayer=sublayer: on_output(sublayer, values))
            before(stack, self.final, lambda values: found.streams.append(values))
            self.hf(torch.tensor([list(tokens)]), use_cache=False)
        found.logits = self.logits(found.streams[-1][-1])
        return found

    def logits(self, stream: Tensor) -> Tensor:
        """The logits of a final stream `[width]`, before any soft-cap."""
        with torch.no_grad():
            logits = self.hf.lm_head(self.final(stream[None])[0])
        return logits * getattr(self.hf.config, "logit_scale", 1.0) / getattr(self.hf.config, "logits_scaling", 1.0)

    def change(self, clean: Run, source: Component, places: Sequence[int], values: Tensor) -> Tensor:
        """δ: what overriding a source alone changes of what its sublayer adds to the stream, `[position, width]`."""
        if source == EMBED:
            now = clean.streams[0].clone()
            now[list(places)] = values
            return now - clean.streams[0]
        sublayer = Component(source.block, "attn" if source.kind == "head" else source.kind)
        was = clean.outputs[sublayer]
        now = was.clone()
        if source.kind != "head":
            now[list(places)] = values
        else:
            heads = clean.heads[source.block].clone()
            size = heads.shape[-1] // HEADS
            heads[list(places), source.unit * size : (source.unit + 1) * size] = values
            now = self._project(source.block, heads)
        return (now - was) * self.multiplier

    def edge(self, tokens: Sequence[int], clean: Run, delta: Tensor, reader: str) -> Run:
        """The run in which a reader alone sees δ, or in which its final stream is changed."""
        if reader == "logits":
            found = Run([*clean.streams[:-1], clean.streams[-1] + delta], clean.outputs)
            found.logits = self.logits(found.streams[-1][-1])
            return found
        kind, *numbers = reader.split(".")
        block = int(numbers[0])
        sublayer = Component(block, kind if kind in ("attn", "mlp") else "attn")
        stream = self.read(clean, sublayer)
        with torch.no_grad():
            if kind in ("attn", "mlp"):
                output = self.output(clean, sublayer, stream + delta)
            else:
                output = self._attend_by_hand(clean, reader, stream, stream + delta)
        return self.run(tokens, {sublayer: output})

    def everything(self, tokens: Sequence[int], clean: Run, source: Component, delta: Tensor) -> Run:
        """The run in which all that is downstream sees δ."""
        if source == EMBED:
            return self.run(tokens, {EMBED: clean.streams[0] + delta})
        sublayer = Component(source.block, "attn" if source.kind == "head" else source.kind)
        return self.run(tokens, {sublayer: clean.outputs[sublayer] + delta / self.multiplier})

    def exists(self, source: Component, reader: str) -> bool:
        """Whether the reader is downstream of the source."""
        if reader == "logits" or source == EMBED:
            return True
        kind, *numbers = reader.split(".")
        reads_late, writes_late = kind == "mlp", source.kind == "mlp"
        if self.names.parallel:
            return int(numbers[0]) > source.block
        return (int(numbers[0]), reads_late) > (source.block, writes_late)

    def read(self, clean: Run, sublayer: Component) -> Tensor:
        """The stream that a sublayer reads, before its norm."""
        stream = clean.streams[sublayer.block]
        if sublayer.kind == "attn" or self.names.parallel:
            return stream
        return stream + self.multiplier * clean.outputs[Component(sublayer.block, "attn")]

    def output(self, clean: Run, sublayer: Component, stream: Tensor) -> Tensor:
        """The output of a sublayer that reads a stream, by the model's own modules."""
        block, second = self.blocks[sublayer.block], sublayer.kind == "mlp"
        name = self.names.norms[second]
        normed = block.get_submodule(name)(stream[None]) if name else stream[None]
        module = block.get_submodule(self.names.sublayers[second])
        made = module(normed) if second else module(hidden_states=normed, **clean.given[sublayer.block])
        made = made[0] if isinstance(made, tuple) else made
        return self._after(sublayer, made)[0]

    def _output(self, sublayer: Component) -> Any:
        second = sublayer.kind == "mlp"
        name = self.names.after[second] or self.names.sublayers[second]
        return self.blocks[sublayer.block].get_submodule(name)

    def _after(self, sublayer: Component, values: Tensor) -> Tensor:
        name = self.names.after[sublayer.kind == "mlp"]
        return self.blocks[sublayer.block].get_submodule(name)(values) if name else values

    def _project(self, block: int, heads: Tensor) -> Tensor:
        with torch.no_grad():
            projected = self.blocks[block].get_submodule(self.names.heads)(heads[None])
            return self._after(Component(block, "attn"), projected)[0]

    def _attend_by_hand(self, clean: Run, reader: str, stream: Tensor, changed: Tensor) -> Tensor:
        """Attention written out, where some heads' queries, keys or values are of the changed stream."""
        kind, *numbers = reader.split(".")
        block = int(numbers[0])
        was, now = self._inputs(clean, block, stream), self._inputs(clean, block, changed)
        torch.testing.assert_close(
            self._attend(block, was), clean.outputs[Component(block, "attn")], rtol=1e-9, atol=1e-9
        )
        if kind == "group":
            kind, size = numbers[2], HEADS // self._groups
            heads = [size * int(numbers[1]) + each for each in range(size)]
        else:
            heads = [int(numbers[1])]
        mixed = {name: values.clone() for name, values in was.items()}
        mixed[kind][heads] = now[kind][heads]
        return self._attend(block, mixed)

    @property
    def _groups(self) -> int:
        return int(getattr(self.hf.config, "num_key_value_heads", HEADS))

    def _inputs(self, clean: Run, block: int, stream: Tensor) -> dict[str, Tensor]:
        """The query, key and value that each head uses, `[head, position, columns]`."""
        layer = self.blocks[block]
        module = layer.get_submodule(self.names.sublayers[0])
        normed = layer.get_submodule(self.names.norms[0])(stream)
        if hasattr(module, "c_attn"):
            parts = module.c_attn(normed).chunk(3, -1)
            return {name: _by_head(part, HEADS) for name, part in zip(("query", "key", "value"), parts, strict=True)}
        query = _by_head(module.q_proj(normed), HEADS)
        key, value = (_by_head(each(normed), self._groups) for each in (module.k_proj, module.v_proj))
        if hasattr(module, "q_norm"):
            query, key = module.q_norm(query), module.k_norm(key)
        cos, sin = (each[0] for each in clean.given[block]["position_embeddings"])
        query, key = (each * cos + _rotated(each) * sin for each in (query, key))
        size = HEADS // self._groups
        return {"query": query, "key": key.repeat_interleave(size, 0), "value": value.repeat_interleave(size, 0)}

    def _attend(self, block: int, inputs: dict[str, Tensor]) -> Tensor:
        module = self.blocks[block].get_submodule(self.names.sublayers[0])
        scores = inputs["query"] @ inputs["key"].mT * module.scaling
        cap = getattr(module, "attn_logit_softcapping", None)
        scores = scores if cap is None else (scores / cap).tanh() * cap
        length = scores.shape[-1]
        back = torch.arange(length)[:, None] - torch.arange(length)
        window = getattr(module, "sliding_window", None) or length
        weights = scores.masked_fill((back < 0) | (back >= window), -torch.inf).softmax(-1)
        return self._project(block, (weights @ inputs["value"]).transpose(0, 1).flatten(1))


def _by_head(values: Tensor, heads: int) -> Tensor:
    return values.unflatten(-1, (heads, -1)).transpose(0, 1)


def _rotated(values: Tensor) -> Tensor:
    first, second = values.chunk(2, -1)
    return torch.cat([-second, first], -1)


def drawn(component: Component, prompt: int, patches: int, slots: int, columns: int) -> Tensor:
    """Random values that an ablation writes, `[patch, slot, columns]`, the same wherever the prompt is."""
    generator = torch.Generator().manual_seed(crc32(f"{component} of {prompt}".encode()))
    return torch.randn(patches, 16, columns, generator=generator, dtype=torch.float64)[:, :slots]


@dataclass(frozen=True)
class Drawn:
    """An ablation that writes the values of `drawn`, or goes a share of the way to them."""

    patches: int = 2
    step: float = 1.0

    def draw(self, clean: hs.ablations.CleanActivations, prompts: Sequence[int]) -> hs.ablations.Patches:
        def values(component: Component) -> Tensor:
            own = clean.own_activations(component, prompts)
            each = [drawn(component, prompt, self.patches, *own.shape[2:]) for prompt in prompts]
            return own + self.step * (torch.stack(each) - own)

        return hs.ablations.Patches(np.full((len(prompts), self.patches), -1), values)
