"""Attention as the wavefront engine needs it, through transformers' own AttentionInterface.

A model's blocks call one function to attend. Under `attending`, that function is the engine's: in the clean run it
attends as the model would and keeps each layer's keys and values; in the sweep, every row attends to the prefix it
shares with all rows of its prompt, and to its own last positions.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from hydrascope.models.language_model import LanguageModel, wider

_NAME = "hydrascope"

Attend = Callable[..., Tensor]
#: Per kind of input, the heads and rows in which it is frozen.
FrozenInputs = dict[str, list[tuple[int, slice]]]
_attend: ContextVar[Attend] = ContextVar("attend")


@dataclass
class Prefix:
    """Per layer, what the last positions of each prompt can attend to: what is before them, and themselves.

    The sweep runs the last `length` positions of every prompt, its *suffix*; the rows of a sweep share all before.

    Attributes:
        start: `[prompt]` where each prompt's suffix starts.
        length: of the suffixes.
        before: how many positions are before the latest start.
        keys, values: per layer `[prompt, head, position, head width]`, of what is before the latest start.
        visible: per layer `[prompt, suffix, position]`: before the suffix, and seen from each of its positions.
        own: per layer `[prompt, suffix, suffix]`: which positions of the suffix see which.
    """

    start: Tensor
    length: int
    before: int
    keys: dict[int, Float[Tensor, "prompt head position width"]] = field(default_factory=dict)
    values: dict[int, Float[Tensor, "prompt head position width"]] = field(default_factory=dict)
    visible: dict[int, Bool[Tensor, "prompt suffix position"]] = field(default_factory=dict)
    own: dict[int, Bool[Tensor, "prompt suffix suffix"]] = field(default_factory=dict)

    @classmethod
    def of(cls, last: Int[Tensor, "prompt"], positions: Int[Tensor, "prompt slot"], device: torch.device) -> "Prefix":
        """Of prompts that end at `last` and begin to change at the first of their `positions`, all on the CPU."""
        length = int((last - positions.amin(1)).max()) + 1
        start = (last + 1 - length).clamp_min(0)
        return cls(start.to(device), length, int(start.max()))

    @cached_property
    def suffix(self) -> Int[Tensor, "prompt suffix"]:
        """The positions of each prompt's suffix."""
        return self.start[:, None] + torch.arange(self.length, device=self.start.device)

    def keep(self, block: int, key: Tensor, value: Tensor, mask: Tensor) -> None:
        """Keep layer `layer`'s keys and values, and the suffix's part of its mask."""
        # Copies: a view would keep all that they are cut from.
        self.keys[block], self.values[block] = key[:, :, : self.before].clone(), value[:, :, : self.before].clone()
        prompts = torch.arange(len(key), device=key.device)[:, None]
        start, suffix = self.start.to(key.device), self.suffix.to(key.device)
        seen = mask.expand(len(key), -1, -1, -1)[prompts, 0, suffix]
        positions = torch.arange(self.before, device=key.device)
        self.visible[block] = seen[:, :, : self.before] & (positions < start[:, None, None])
        self.own[block] = seen.gather(2, suffix[:, None].expand(-1, self.length, -1))


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
        block: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor,
        scaling: float,
        softcap: float | None,
        sinks: Tensor | None,
    ) -> Tensor:
        prefix.keep(block, key, value, mask)
        if softcap is None and sinks is None:
            return F.scaled_dot_product_attention(
                query, key, value, attn_mask=mask, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
            )
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        scores = capped(query @ key.transpose(-1, -2) * scaling, softcap)
        weights = softmax(scores.masked_fill(~mask, -torch.inf), sinks)
        return weights.to(value.dtype) @ value

    return attend


def row_attention(prefix: Prefix, held: Callable[[int], FrozenInputs]) -> Attend:
    """Attention of `[prompt, head, row · suffix, head width]`: each row to its prompt's prefix and its own suffix.

    Args:
        held: what heads of a layer attend by that is frozen: there they attend by what row 0, the clean run, has.
    """

    def attend(
        block: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scaling: float,
        softcap: float | None,
        sinks: Tensor | None,
    ) -> Tensor:
        prompts, heads, rows, width = query.shape
        kv_heads, length = key.shape[1], prefix.length
        if frozen := held(block):
            query, key, value = (
                _with_frozen(frozen.get(kind, []), each, heads, length)
                for kind, each in (("query", query), ("key", key), ("value", value))
            )
        # Heads that share keys and values (grouped-query attention) are rows of one product.
        grouped = query.reshape(prompts, kv_heads, heads // kv_heads, rows, width)
        scores = grouped.flatten(2, 3) @ prefix.keys[block].transpose(-1, -2)
        before, suffixes = scores.shape[-1], rows // length
        scores = scores.view(prompts, heads, rows, before)
        by_key = query.reshape(prompts, key.shape[1], -1, rows, width)
        own = _own_scores(by_key, key, length).view(prompts, heads, rows, length)
        scores, own = capped(scores * scaling, softcap), capped(own * scaling, softcap)
        # [prompt, 1, 1, suffix, position]: the same for every head and row.
        hidden = ~prefix.visible[block][:, None, None]
        scores.view(prompts, heads, suffixes, length, before).masked_fill_(hidden, -torch.inf)
        if length > 1:
            unseen = ~prefix.own[block][:, None, None]
            own.view(prompts, heads, suffixes, length, length).masked_fill_(unseen, -torch.inf)
        weights = softmax(torch.cat([scores, own], dim=-1), sinks).to(value.dtype)
        shared = (
            weights[..., :before].reshape(prompts, kv_heads, heads // kv_heads * rows, before) @ prefix.values[block]
        )
        shared = shared.view(prompts, value.shape[1], -1, rows, value.shape[-1])
        own = weights[..., before:].reshape(prompts, value.shape[1], -1, rows, length)
        return _with_own(shared, own, value).flatten(1, 2)

    return attend


def _with_frozen(where: Sequence[tuple[int, slice]], each: Tensor, heads: int, length: int) -> Tensor:
    """`each` with the first row's in some heads and rows; a copy a query head where heads share it."""
    if not where:
        return each
    own = each.repeat_interleave(heads // each.shape[1], 1).unflatten(2, (-1, length))
    for head, rows in where:
        own[:, head, rows] = own[:, head, :1].clone()
    return own.flatten(2, 3)


def _own_scores(query: Tensor, key: Tensor, length: int) -> Tensor:
    """`[prompt, head, group, row · suffix, suffix]` each position's scores of its own row's positions."""
    if length == 1:
        # A product of single numbers is faster as one pass than as many matrices.
        return (query * key[:, :, None]).sum(-1, keepdim=True)
    keys = key.unflatten(2, (-1, length))[:, :, None]
    return (query.unflatten(3, (-1, length)) @ keys.transpose(-1, -2)).flatten(3, 4)


def _with_own(shared: Tensor, weights: Tensor, value: Tensor) -> Tensor:
    """`shared`, and what each position takes from its own row's positions."""
    length = weights.shape[-1]
    if length == 1:
        return torch.addcmul(shared, weights, value[:, :, None])
    values = value.unflatten(2, (-1, length))[:, :, None]
    return shared + (weights.unflatten(3, (-1, length)) @ values).flatten(3, 4)


def capped(scores: Tensor, softcap: float | None) -> Tensor:
    return scores if softcap is None else (scores / softcap).tanh() * softcap


def softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
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
