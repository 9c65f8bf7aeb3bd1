"""Attention as the wavefront engine needs it, through transformers' own AttentionInterface.

A model's blocks call one function to attend. Under `attending`, that function is the engine's: in the clean run it
attends as the model would and keeps each layer's keys and values; in the sweep, every row attends to the prefix it
shares with all rows of its prompt, and to itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from hydrascope.model import LanguageModel, wider

_NAME = "hydrascope"

Attend = Callable[..., Tensor]
_attend: ContextVar[Attend] = ContextVar("attend")


@dataclass
class Prefix:
    """Per layer, what the final position of each prompt can attend to besides itself.

    Attributes:
        last: `[prompt]` each prompt's final position.
        keys, values: per layer `[prompt, head, position, head width]`.
        visible: per layer `[prompt, position]`: before the final position, and inside the layer's window.
    """

    last: Tensor
    keys: dict[int, Float[Tensor, "prompt head position width"]] = field(default_factory=dict)
    values: dict[int, Float[Tensor, "prompt head position width"]] = field(default_factory=dict)
    visible: dict[int, Bool[Tensor, "prompt position"]] = field(default_factory=dict)

    def keep(self, layer: int, key: Tensor, value: Tensor, mask: Tensor) -> None:
        """Keep layer `layer`'s keys and values, and the final position's row of its mask."""
        self.keys[layer], self.values[layer] = key, value
        visible = mask.expand(len(key), -1, -1, -1)[torch.arange(len(key)), 0, self.last].clone()
        # The final position itself is not shared: each row has its own key and value there.
        visible[torch.arange(len(key)), self.last] = False
        self.visible[layer] = visible


@contextmanager
def attending(model: LanguageModel, attend: Attend) -> Iterator[None]:
    """Let every attention layer of `model` call `attend(layer, query, key, value, mask, **settings)`."""
    configs = {id(module.config): module.config for module in model.hf.modules() if hasattr(module, "config")}.values()
    before = [config._attn_implementation for config in configs]
    token = _attend.set(attend)
    try:
        for config in configs:
            config._attn_implementation = _NAME
        yield
    finally:
        _attend.reset(token)
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = implementation


def causal_attention(prefix: Prefix) -> Attend:
    """Attention as the model itself computes it, keeping in `prefix` what the rows of a sweep share."""

    def attend(
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor,
        scaling: float,
        softcap: float | None,
        sinks: Tensor | None,
    ) -> Tensor:
        prefix.keep(layer, key, value, mask)
        if softcap is None and sinks is None:
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
            )
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        scores = _capped(query @ key.transpose(-1, -2) * scaling, softcap)
        weights = _softmax(scores.masked_fill(~mask, -torch.inf), sinks)
        return weights.to(value.dtype) @ value

    return attend


def row_attention(prefix: Prefix) -> Attend:
    """Attention of `[prompt, head, row, head width]`: every row to its prompt's prefix, and to itself alone."""

    def attend(
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scaling: float,
        softcap: float | None,
        sinks: Tensor | None,
    ) -> Tensor:
        prompts, heads, rows, width = query.shape
        kv_heads = key.shape[1]
        # Heads that share keys and values (grouped-query attention) are rows of one product.
        grouped = query.reshape(prompts, kv_heads, heads // kv_heads, rows, width)
        scores = grouped.flatten(2, 3) @ prefix.keys[layer].transpose(-1, -2)
        scores = scores.view(prompts, heads, rows, -1)
        own = (grouped * key[:, :, None]).sum(-1).view(prompts, heads, rows, 1)
        scores, own = _capped(scores * scaling, softcap), _capped(own * scaling, softcap)
        scores = scores.masked_fill_(~prefix.visible[layer][:, None, None], -torch.inf)
        weights = _softmax(torch.cat([scores, own], dim=-1), sinks).to(value.dtype)
        shared = weights[..., :-1].reshape(prompts, kv_heads, -1, scores.shape[-1]) @ prefix.values[layer]
        shared = shared.view(prompts, kv_heads, heads // kv_heads, rows, -1)
        own = weights[..., -1:].view(prompts, kv_heads, heads // kv_heads, rows, 1)
        return torch.addcmul(shared, own, value[:, :, None]).flatten(1, 2)

    return attend


def _capped(scores: Tensor, softcap: float | None) -> Tensor:
    return scores if softcap is None else (scores / softcap).tanh() * softcap


def _softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """Weights over the last dimension, in float32 or wider; a head's sink takes weight and gives nothing."""
    scores = scores.to(wider(scores.dtype))
    if sinks is None:
        return scores.softmax(-1)
    sink = sinks.to(scores.dtype).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
    return torch.cat([scores, sink], dim=-1).softmax(-1)[..., :-1]


def _forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """What transformers calls; the window of sliding attention is in the mask."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = _attend.get()(module.layer_idx, query, key, value, attention_mask, scaling, softcap, s_aux)
    return out.transpose(1, 2).contiguous(), None


def _mask(**arguments: Any) -> Tensor | None:
    """The model's mask, always written out: True where a position is seen."""
    return sdpa_mask(**{**arguments, "allow_is_causal_skip": False})


AttentionInterface.register(_NAME, _forward)
AttentionMaskInterface.register(_NAME, _mask)
