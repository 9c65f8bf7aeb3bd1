"""The Llama of a recipe, and what disturbs it while it trains."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from training.recipe import Recipe


def shape(recipe: Recipe, bos: int, eos: int, pad: int) -> LlamaConfig:
    """The configuration of the recipe's shape, with its dropout on attention weights."""
    return LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.width,
        intermediate_size=recipe.mlp,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=512,
        attention_dropout=recipe.dropout,
        tie_word_embeddings=recipe.tied,
        use_cache=False,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=pad,
    )


def fresh(recipe: Recipe, bos: int, eos: int, pad: int) -> LlamaForCausalLM:
    """A Llama with weights drawn from the recipe's seed.

    What a layer adds starts small, as in GPT-2, so that the residual's size doesn't grow with depth.
    """
    set_seed(recipe.seed)
    llama = LlamaForCausalLM(shape(recipe, bos, eos, pad))
    with torch.no_grad():
        for layer in llama.model.layers:
            for out in (layer.self_attn.o_proj, layer.mlp.down_proj):
                out.weight.mul_((2 * llama.config.num_hidden_layers) ** -0.5)
    return llama


def drop_out(llama: LlamaForCausalLM, share: float) -> None:
    """Dropout on the embeddings and on what every sublayer adds, while training: Llama itself has none there."""

    def hook(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        return nn.functional.dropout(output, share, module.training)

    llama.model.embed_tokens.register_forward_hook(hook)
    for layer in llama.model.layers:
        layer.self_attn.o_proj.register_forward_hook(hook)
        layer.mlp.down_proj.register_forward_hook(hook)


def fail(llama: LlamaForCausalLM, left_out: float, swapped: float) -> None:
    """While training, at random places what a sublayer adds is left out, or is that of another sequence there."""

    def hook(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        if not module.training:
            return output
        drawn = torch.rand(output.shape[:2], device=output.device)[..., None]
        other = torch.where(drawn < left_out, torch.zeros_like(output), output.roll(1, 0))
        return torch.where(drawn < left_out + swapped, other, output)

    for layer in llama.model.layers:
        layer.self_attn.o_proj.register_forward_hook(hook)
        layer.mlp.down_proj.register_forward_hook(hook)
