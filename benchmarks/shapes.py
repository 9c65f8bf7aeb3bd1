"""The models that are timed: the shapes of real ones with random weights, since time doesn't depend on the values."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel


@dataclass(frozen=True)
class Shape:
    """A model to be built, and what one token costs in it.

    Attributes:
        attn_weights: entries of one attention layer's weight matrices.
        mlp_weights: entries of one MLP layer's weight matrices.
    """

    name: str
    config: GPT2Config | LlamaConfig
    attn_weights: int
    mlp_weights: int

    @property
    def layers(self) -> int:
        return self.config.num_hidden_layers

    @property
    def components(self) -> int:
        return 2 * self.layers

    @property
    def width(self) -> int:
        return self.config.hidden_size

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
    return Shape(name, config, attn_weights=4 * width**2, mlp_weights=8 * width**2)


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
    return Shape(name, config, attn_weights=2 * width**2 + 2 * width * kv_width, mlp_weights=3 * width * inner)


GPT2_SMALL = gpt2("GPT-2 small")
LLAMA_1024 = llama("Llama, grouped queries")
TINY_GPT2 = gpt2("tiny GPT-2", layers=3, width=48, heads=4, vocabulary=300)
TINY_LLAMA = llama("tiny Llama", layers=3, width=48, heads=4, kv_heads=2, inner=80, vocabulary=300)


@dataclass(frozen=True)
class Parts:
    """Where a model, or a tool's wrapper of it, keeps what the protocol touches; attn and mlp by layer."""

    attn: list[Any]
    mlp: list[Any]
    norm: Any
    head: Any

    @property
    def components(self) -> list[Any]:
        """attn.0, mlp.0, attn.1, …: the order of every result here."""
        return [part for pair in zip(self.attn, self.mlp, strict=True) for part in pair]


def parts(model: Any, shape: Shape) -> Parts:
    """The parts of `model`: a transformers model, or a wrapper that mirrors its attributes."""
    if isinstance(shape.config, GPT2Config):
        body = model.transformer
        blocks = [body.h[layer] for layer in range(shape.layers)]
        return Parts([b.attn for b in blocks], [b.mlp for b in blocks], body.ln_f, model.lm_head)
    body = model.model
    blocks = [body.layers[layer] for layer in range(shape.layers)]
    return Parts([b.self_attn for b in blocks], [b.mlp for b in blocks], body.norm, model.lm_head)
