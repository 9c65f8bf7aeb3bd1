"""Terms of dictionaries by their definition, in plain forward passes with hooks of their own.

Written from the definition alone: nothing here is hydrascope's but the weights that a `Dictionary` holds and the names
of components. A prompt is run alone, in float64.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from tiny import tiny
from torch import Tensor, nn

from hydrascope.components.component import Component
from hydrascope.dictionaries.dictionary import Dictionary
from hydrascope.models.language_model import LanguageModel

HEADS = 4

#: From a component to positions and what it writes there instead, `[slot, columns]`.
Changes = Mapping[Component, tuple[Sequence[int], Tensor]]


@dataclass(frozen=True)
class Names:
    """The module names of an architecture.

    Attributes:
        mlp_norm: the norm in front of the MLP; "" if there is none.
        post_norm: whether `attn` and `mlp` are norms that follow the projections.
        offset: what the norms add to their weight.
    """

    blocks: str
    final: str
    attn: str
    mlp: str
    heads: str
    neurons: str
    mlp_input: str = "mlp"
    mlp_norm: str = "post_attention_layernorm"
    post_norm: bool = False
    offset: float = 0.0
    layer_norm: bool = False


_LLAMA = ("model.layers", "model.norm")
_PROJECTIONS = ("self_attn.o_proj", "mlp.down_proj")
_POST = ("post_attention_layernorm", "post_feedforward_layernorm")

NAMES = {
    "gpt2": Names(
        "transformer.h",
        "transformer.ln_f",
        "attn",
        "mlp",
        "attn.c_proj",
        "mlp.c_proj",
        mlp_norm="ln_2",
        layer_norm=True,
    ),
    "llama": Names(*_LLAMA, "self_attn", "mlp", *_PROJECTIONS),
    "gemma": Names(*_LLAMA, "self_attn", "mlp", *_PROJECTIONS, offset=1.0),
    "granite": Names(*_LLAMA, "self_attn", "mlp", *_PROJECTIONS),
    "gemma2": Names(*_LLAMA, *_POST, *_PROJECTIONS, mlp_norm="pre_feedforward_layernorm", post_norm=True, offset=1.0),
    "olmo2-bias": Names(*_LLAMA, *_POST, *_PROJECTIONS, mlp_norm="", post_norm=True),
    "gpt_neox": Names(
        *("gpt_neox.layers", "gpt_neox.final_layer_norm", "attention", "mlp"),
        *("attention.dense", "mlp.dense_4h_to_h"),
        layer_norm=True,
    ),
}


@cache
def plain_model(case: str) -> LanguageModel:
    """A tiny model without dropout."""
    model = tiny(case)
    model.hf.eval()
    return model


def encode(dictionary: Dictionary, x: Tensor) -> Tensor:
    """f(x) = act(W_enc (x − b_pre) + b_enc), `[position, feature]`, feature by feature."""
    d = dictionary
    if d.centred:
        x = x - x.mean(-1, keepdim=True)
    before = x if d.pre_bias is None else x - d.pre_bias
    z = before @ d.encoder.T
    if d.encoder_bias is not None:
        z = z + d.encoder_bias
    ranked = z * d.decoder.norm(dim=1) if d.by_decoder_norm else z
    active = z > 0
    if d.threshold is not None:
        active = active & (ranked > d.threshold)
    if d.k is not None:
        for position, row in enumerate(ranked.tolist()):
            best = sorted(range(len(row)), key=lambda number: -row[number])[: d.k]
            active[position] &= torch.tensor([number in best for number in range(len(row))])
    return torch.where(active, z, torch.zeros_like(z))


def rest(dictionary: Dictionary, x: Tensor) -> Tensor:
    """r(x) = b_dec + W_skip x."""
    d = dictionary
    r = torch.zeros(len(x), d.decoder.shape[1], dtype=x.dtype)
    if d.decoder_bias is not None:
        r = r + d.decoder_bias
    if d.skip is not None:
        r = r + (x - x.mean(-1, keepdim=True) if d.centred else x) @ d.skip.T
    return r


@dataclass
class Run:
    """One forward pass.

    Attributes:
        values: by site, `[position, columns]` what stands there, after overrides.
        terms: by `feature`, `error` and `bias`, `[position, …]`, after overrides.
        added: by sublayer, `[width]` what it adds to the stream at the last position.
        projected: by sublayer, `[width]` what the norm that follows it receives at the last position.
        own: `[width]` the change of the stream at the last position by its own terms.
        streams: the stream that enters each block, and the final one, `[width]`.
        normed: `[width]` what the final norm makes of it.
    """

    values: dict[Component, Tensor] = field(default_factory=dict)
    terms: dict[str, Tensor] = field(default_factory=dict)
    added: dict[Component, Tensor] = field(default_factory=dict)
    projected: dict[Component, Tensor] = field(default_factory=dict)
    own: Tensor = field(default_factory=lambda: torch.zeros(()))
    streams: list[Tensor] = field(default_factory=list)
    normed: Tensor = field(default_factory=lambda: torch.zeros(()))


class PlainTerms:
    """A tiny model with one dictionary, and what it computes by the definition."""

    def __init__(self, case: str, dictionary: Dictionary) -> None:
        self.model, self.dictionary, self.names = plain_model(case), dictionary, NAMES[case]
        self.hf: Any = self.model.hf
        self.kind, _, block = dictionary.site.rpartition(".")
        self.block = int(block)
        self.blocks: Any = self.hf.get_submodule(self.names.blocks)
        self.final: Any = self.hf.get_submodule(self.names.final)
        self.multiplier = getattr(self.hf.config, "residual_multiplier", 1.0)
        self.unembedding = self.hf.lm_head.weight.detach() / getattr(self.hf.config, "logits_scaling", 1.0)

    def run(self, tokens: Sequence[int], changes: Changes | None = None) -> Run:
        """Run a prompt with some components overridden."""
        changes, found = changes or {}, Run()
        names, multiplier = self.names, self.multiplier

        def override(values: Tensor, kind: str, block: int) -> Tensor:
            values = values.clone()
            for component, (positions, new) in changes.items():
                if (component.kind, component.block) != (kind, block):
                    continue
                columns = columns_of(component, values) if component.unit >= 0 else slice(None)
                values[list(positions), columns] = new
            return values

        def rewrite(x: Tensor, y: Tensor) -> Tensor:
            """Take y apart once, override terms, and put it together again."""
            dictionary = self.dictionary
            f, r = encode(dictionary, x), rest(dictionary, x)
            error = y - f @ dictionary.decoder - r
            before = {"feature": f, "error": error, "bias": r}
            after = {kind: term.clone() for kind, term in before.items()}
            for component, (positions, new) in changes.items():
                if component.is_term:
                    columns = slice(component.unit, component.unit + 1) if component.unit >= 0 else slice(None)
                    after[component.kind][list(positions), columns] = new
            found.terms = after
            difference = {kind: after[kind] - before[kind] for kind in before}
            return y + difference["feature"] @ dictionary.decoder + difference["error"] + difference["bias"]

        def here(kind: str, block: int) -> bool:
            return (self.kind, self.block) == (kind, block)

        def watch(stack: ExitStack, block: int, layer: Any, kind: str, unit: str) -> None:
            sublayer = Component(block, kind)
            output = layer.get_submodule(getattr(names, kind))
            received: list[Tensor] = []

            def on_units(values: Tensor) -> Tensor:
                values = override(values, unit, block)
                if kind == "attn" and here("heads", block):
                    values = rewrite(values, values)
                found.values[Component(block, unit)] = values
                return values

            def on_norm(values: Tensor) -> Tensor:
                if here(f"raw.{kind}", block):
                    values = rewrite(values, values)
                found.projected[sublayer] = values[-1]
                return values

            def on_output(values: Tensor) -> Tensor:
                values = override(values, kind, block)
                if here(kind, block):
                    values = rewrite(values * multiplier, values * multiplier) / multiplier
                if kind == "mlp" and here("transcoder", block):
                    values = rewrite(received.pop(), values * multiplier) / multiplier
                found.values[sublayer] = values
                found.added[sublayer] = values[-1] * multiplier
                return values

            before(stack, layer.get_submodule(names.heads if kind == "attn" else names.neurons), on_units)
            if names.post_norm:
                before(stack, output, on_norm)
            if kind == "mlp" and here("transcoder", block):
                if self.dictionary.before_gain:
                    norm = layer.get_submodule(names.mlp_norm)
                    before(stack, norm, lambda values: received.append(self._without_gain(norm, values)))
                else:
                    before(stack, layer.get_submodule(names.mlp_input), received.append)
            after(stack, output, on_output)

        def on_stream(block: int, values: Tensor) -> Tensor:
            changed = rewrite(values, values) if here("stream", block) else values
            if here("stream", block):
                found.own = changed[-1] - values[-1]
            found.streams.append(changed[-1])
            return changed

        def on_final(values: Tensor) -> None:
            found.normed = values[-1]

        with torch.no_grad(), ExitStack() as stack:
            for number, layer in enumerate(self.blocks):
                before(stack, layer, lambda values, number=number: on_stream(number, values))
                watch(stack, number, layer, "attn", "head")
                watch(stack, number, layer, "mlp", "neuron")
            before(stack, self.final, lambda values: found.streams.append(values[-1]))
            after(stack, self.final, on_final)
            self.hf(torch.tensor([list(tokens)]), use_cache=False)
        return found

    def home(self, component: Component) -> Component | None:
        """The sublayer that a component belongs to; None for a term of a stream."""
        if component.is_term:
            kind = "mlp" if self.kind == "transcoder" else "attn" if self.kind == "heads" else self.kind.split(".")[-1]
            return None if kind == "stream" else Component(self.block, kind)
        return Component(component.block, {"head": "attn", "neuron": "mlp"}.get(component.kind, component.kind))

    def change(self, run: Run, clean: Run, home: Component | None) -> Tensor:
        """How far what a sublayer adds, or a stream by its own terms, is another than in the clean run."""
        return run.own if home is None else run.added[home] - clean.added[home]

    def written(self, run: Run, term: Component) -> Tensor:
        """What a term adds to the stream at the last position of a run, `[width]`."""
        values, dictionary = run.terms[term.kind][-1], self.dictionary
        if term.kind == "feature":
            rows = range(len(values)) if term.unit < 0 else [term.unit]
            values = torch.stack([values[j] * dictionary.decoder[j] for j in rows]).sum(0)
        if self.kind in ("attn", "mlp", "transcoder", "stream"):
            return values
        home = self.home(term)
        assert home is not None
        layer = self.blocks[self.block]
        if self.kind == "heads":
            module = layer.get_submodule(self.names.heads)
            weight = module.weight.detach()
            values = values @ (weight.T if isinstance(module, nn.Linear) else weight)
        if self.names.post_norm:
            norm = layer.get_submodule(getattr(self.names, home.kind))
            scale = (run.projected[home].square().mean() + _eps(norm)).sqrt()
            values = values * (norm.weight.detach() + self.names.offset) / scale
        return values * self.multiplier

    def sigma(self, stream: Tensor) -> Tensor:
        """The scale of the final norm."""
        return (self._centred(stream).square().mean() + _eps(self.final)).sqrt()

    def read(self, part: Tensor, vector: Tensor, scale: Tensor | float) -> float:
        """⟨part, a⟩/σ through the final norm, of a vector that reads what this norm gives."""
        gain = self.final.weight.detach() + self.names.offset
        return float(self._centred(part) @ (gain * vector) / scale)

    def logit(self, stream: Tensor, vector: Tensor) -> float:
        """⟨norm(stream), vector⟩."""
        with torch.no_grad():
            return float(self.final(stream[None])[0] @ vector)

    def token(self, number: int) -> Tensor:
        """The vector that reads a token's centred logit from what the final norm gives."""
        return self.unembedding[number] - self.unembedding.mean(0)

    def _centred(self, vectors: Tensor) -> Tensor:
        return vectors - vectors.mean(-1, keepdim=True) if self.names.layer_norm else vectors

    def _without_gain(self, norm: Any, vectors: Tensor) -> Tensor:
        """What a norm makes of vectors before its gain and bias."""
        centred = self._centred(vectors)
        return centred / (centred.square().mean(-1, keepdim=True) + _eps(norm)).sqrt()


def standing(plain: PlainTerms, clean: Run, component: Component) -> Tensor:
    """The component's values in the clean run, at every position."""
    if component.is_term:
        values = clean.terms[component.kind]
        return values if component.unit < 0 else values[:, component.unit, None]
    values = clean.values[Component(component.block, component.kind)]
    return values if component.unit < 0 else values[:, columns_of(component, values)]


def columns_of(unit: Component, values: Tensor) -> slice:
    """The columns of a head or neuron among the values of all."""
    size = values.shape[1] // HEADS if unit.kind == "head" else 1
    return slice(unit.unit * size, (unit.unit + 1) * size)


def _eps(norm: Any) -> float:
    return next(getattr(norm, name) for name in ("variance_epsilon", "eps") if hasattr(norm, name))


def before(stack: ExitStack, module: Any, change: Callable[[Tensor], Tensor | None]) -> None:
    """Let `change` see, and replace, what a module receives, `[position, columns]`."""

    def hook(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        given = args[0] if args else kwargs["hidden_states"]
        made = change(given[0])
        made = given if made is None else made[None]
        return ((made, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": made})

    stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)


def after(stack: ExitStack, module: Any, change: Callable[[Tensor], Tensor | None]) -> None:
    """Let `change` see, and replace, what a module gives, `[position, columns]`."""

    def hook(module: nn.Module, args: tuple, output: Any) -> Any:
        several = isinstance(output, tuple)
        made = change((output[0] if several else output)[0])
        if made is None:
            return None
        return (made[None], *output[1:]) if several else made[None]

    stack.callback(module.register_forward_hook(hook).remove)
