"""Find a head's query, key or value in the output of a module, before positions mix."""

from typing import Any

from torch import nn

from hydrascope.components.component import Component


def head_input(block: Any, config: Any, part: Component) -> tuple[nn.Module, slice] | None:
    """Return the module and its columns; None where a plain hook can't reach the input."""
    kind = config.model_type
    heads = config.num_attention_heads
    shared = getattr(config, "num_key_value_heads", None) or heads
    group = part.unit // (heads // shared)
    place = ("query", "key", "value").index(part.kind)
    if kind == "gpt2":
        size = config.hidden_size // heads
        return block.attn.c_attn, _columns(place * heads + part.unit, size)
    if kind == "gpt_neox":
        return block.attention.query_key_value, _columns(3 * part.unit + place, config.hidden_size // heads)
    attention = block.self_attn
    if kind == "deepseek_v3":
        return _latent(attention, config, part)
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    if kind == "phi3":
        return attention.qkv_proj, _columns((part.unit, heads + group, heads + shared + group)[place], size)
    if kind in ("olmo2", "olmo3") and part.kind != "value":
        # Their norm is one of all heads together.
        return (attention.q_norm, attention.k_norm)[place], _columns((part.unit, group)[place], size)
    projection = (attention.q_proj, attention.k_proj, attention.v_proj)[place]
    return projection, _columns(part.unit if part.kind == "query" else group, size)


def _latent(attention: Any, config: Any, part: Component) -> tuple[nn.Module, slice] | None:
    """Return the module and columns for multi-head latent attention; keys are partly shared."""
    nope, value = config.qk_nope_head_dim, config.v_head_dim
    if part.kind == "query":
        whole = attention.q_proj if config.q_lora_rank is None else attention.q_b_proj
        return whole, _columns(part.unit, nope + config.qk_rope_head_dim)
    if part.kind == "value":
        start = part.unit * (nope + value) + nope
        return attention.kv_b_proj, slice(start, start + value)
    return None


def _columns(number: int, size: int) -> slice:
    return slice(number * size, (number + 1) * size)
