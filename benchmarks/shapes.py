"""The models that are timed: the shapes of real ones with random weights, since time doesn't depend on the values."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from hydrascope.components.component import Component


@dataclass(frozen=True)
class Shape:
    """A model to be built, and what one token costs in it.

    Attributes:
        qkv_weights: entries of one attention layer's weight matrices before attention itself: queries, keys, values.
        out_weights: entries of its output projection.
        mlp_weights: entries of one MLP layer's weight matrices.
    """

    name: str
    config: GPT2Config | LlamaConfig
    qkv_weights: int
    out_weights: int
    mlp_weights: int

    @property
    def layers(self) -> int:
        return self.config.num_hidden_layers

    @property
    def width(self) -> int:
        return self.config.hidden_size

    @property
    def heads(self) -> int:
        return self.config.num_attention_heads

    @property
    def weights(self) -> int:
        """Entries of one layer's weight matrices."""
        return self.qkv_weights + self.out_weights + self.mlp_weights

    def build(self, seed: int = 0) -> PreTrainedModel:
        """The model, float32, in evaluation mode, its weights drawn from `seed`."""
        torch.manual_seed(seed)
        config = self.config
        model = GPT2LMHeadModel(config) if isinstance(config, GPT2Config) else LlamaForCausalLM(config)
        return model.eval().requires_grad_(False)


def gpt2(name: str, layers: int = 12, width: int = 768, heads: int = 12, vocabulary: int = 50257) -> Shape:
    config = GPT2Config(
        n_layer=layers,
        n_embd=width,
        n_head=heads,
        vocab_size=vocabulary,
        bos_token_id=None,
        eos_token_id=None,
    )
    return Shape(name, config, 3 * width**2, width**2, 8 * width**2)


def llama(
    name: str,
    layers: int = 16,
    width: int = 1024,
    heads: int = 16,
    kv_heads: int = 4,
    inner: int = 2816,
    vocabulary: int = 32000,
) -> Shape:
    config = LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=inner,
        vocab_size=vocabulary,
        bos_token_id=None,
        eos_token_id=None,
    )
    kv_width = width * kv_heads // heads
    return Shape(name, config, width**2 + 2 * width * kv_width, width**2, 3 * width * inner)


GPT2_SMALL = gpt2("GPT-2 small")
LLAMA_1024 = llama("Llama, grouped queries")
SMOLLM2 = llama("SmolLM2-135M", layers=30, width=576, heads=9, kv_heads=3, inner=1536, vocabulary=49152)
TINY_GPT2 = gpt2("tiny GPT-2", layers=3, width=48, heads=4, vocabulary=300)
TINY_LLAMA = llama("tiny Llama", layers=3, width=48, heads=4, kv_heads=2, inner=80, vocabulary=300)


@dataclass(frozen=True)
class Parts:
    """Where a model, or a tool's wrapper of it, keeps what the protocol touches; attention and MLPs by layer."""

    attn: list[Any]
    projection: list[Any]
    mlp: list[Any]
    norm: Any
    unembedding: Any

    def layer(self, site: Component) -> Any:
        """The layer whose output `site` is."""
        return (self.attn if site.kind == "attn" else self.mlp)[site.block]


def parts(model: Any, shape: Shape) -> Parts:
    """The parts of `model`: a transformers model, or a wrapper that mirrors its attributes."""
    if isinstance(shape.config, GPT2Config):
        body = model.transformer
        blocks = [body.h[block] for block in range(shape.layers)]
        attn, projection = [block.attn for block in blocks], [block.attn.c_proj for block in blocks]
        return Parts(attn, projection, [block.mlp for block in blocks], body.ln_f, model.lm_head)
    body = model.model
    blocks = [body.layers[block] for block in range(shape.layers)]
    attn, projection = [block.self_attn for block in blocks], [block.self_attn.o_proj for block in blocks]
    return Parts(attn, projection, [block.mlp for block in blocks], body.norm, model.lm_head)


def visit(where: Parts, site: Component, look: Callable[[Tensor], None]) -> Any:
    """Call `look`, which may write into them, with the hidden states at `site`: the handle of a hook.

    A layer's are its output; those of all its heads, side by side, the input of attention's output projection.
    """

    def before(module: nn.Module, inputs: tuple[Tensor]) -> None:
        look(inputs[0])

    def after(module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]) -> None:
        look(output[0] if isinstance(output, tuple) else output)

    if site.kind == "head":
        return where.projection[site.block].register_forward_pre_hook(before)
    return where.layer(site).register_forward_hook(after)
