"""Let a model's blocks attend as the engine needs, through transformers' AttentionInterface.

A model's blocks call one function to attend. Under `attending`, that function is ours: in the clean pass it attends as
the model would, and keeps each block's keys and values; in the sweep, each row attends to the prefix that it shares
with all rows of its prompt, and to its own last positions.

Soft-cap and sinks are computed here and once more in `reference/frozen_inputs.py`, on purpose: each engine checks the
other, so they share none of this.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from hydrascope.engines.causal_blocks import attend_by_blocks
from hydrascope.engines.equal_rows import equal_to_first, write_clean
from hydrascope.models.language_model import LanguageModel, wider

_NAME = "hydrascope"

#: Per kind of input, the heads and rows in which it is frozen.
FrozenInputs = dict[str, list[tuple[int, slice]]]


@dataclass(frozen=True)
class AttentionInputs:
    """The inputs of one block's attention.

    Attributes:
        block: the block's index.
        query: `[prompt, head, position, head width]`.
        key: `[prompt, key head, key position, head width]`; query heads share keys and values in equal groups. There
            are as many positions as queries, but for those that were run before (`after`).
        value: `[prompt, value head, key position, value width]`; as many heads as keys, unless some of either are
            frozen.
        mask: `[prompt or 1, 1, seeing, seen]`, True where a position sees another; sliding windows are in it. Not read
            in the sweep, where it has no rows.
        scaling: the factor of the scores.
        softcap: the bound of the scores, if they have one.
        sinks: `[head]` the scores of sinks, which take weight and give nothing, if there are any.
    """

    block: int
    query: Float[Tensor, "prompt head position width"]
    key: Float[Tensor, "prompt kv_head key_position width"]
    value: Float[Tensor, "prompt value_head key_position value_width"]
    mask: Bool[Tensor, "#prompt 1 seeing seen"]
    scaling: float
    softcap: float | None = None
    sinks: Float[Tensor, "head"] | None = None

    def per_query_head(self, each: Tensor) -> Tensor:
        """Repeat keys or values for each query head: `[prompt, head, position, head width]`."""
        return each.repeat_interleave(self.query.shape[1] // each.shape[1], 1)

    def after(self, keys: Tensor, values: Tensor) -> "AttentionInputs":
        """Let all prompts see the same keys and values before their own.

        These are `[1, head, position, head width]`.
        """
        key, value = (
            torch.cat([before.expand(len(own), -1, -1, -1), own], 2)
            for before, own in ((keys, self.key), (values, self.value))
        )
        return replace(self, key=key, value=value)


#: Computes attention, `[prompt, head, position, head width]`.
Attend = Callable[[AttentionInputs], Tensor]
#: Takes a block's attention weights, `[prompt, head, row · suffix, prefix and suffix]`, in float32 or wider.
TakeWeights = Callable[[int, Tensor], None]
_attend: ContextVar[Attend] = ContextVar("attend")
_block_of: ContextVar[Mapping[nn.Module, int]] = ContextVar("block_of")


@dataclass
class Prefix:
    """The keys and values, per block, to which the last positions of each prompt attend.

    The sweep runs the last `length` positions of every prompt, its *suffix*. All rows of a prompt share the keys and
    values before it.

    Attributes:
        start: `[prompt]` the position at which each prompt's suffix starts.
        length: the length of the suffixes.
        before: the number of positions before the latest start.
        keys, values: per block `[prompt, head, position, head width]`, at the positions before the latest start.
        visible: per block `[prompt, suffix, position]`, True if a position is before the suffix and seen from there.
        own: per block `[prompt, suffix, suffix]`, True if a position of the suffix sees another.
    """

    start: Tensor
    length: int
    before: int
    keys: dict[int, Float[Tensor, "prompt head position width"]] = field(default_factory=dict)
    values: dict[int, Float[Tensor, "prompt head position value_width"]] = field(default_factory=dict)
    visible: dict[int, Bool[Tensor, "prompt suffix position"]] = field(default_factory=dict)
    own: dict[int, Bool[Tensor, "prompt suffix suffix"]] = field(default_factory=dict)

    @classmethod
    def of(cls, last: Int[Tensor, "prompt"], positions: Int[Tensor, "prompt slot"], device: torch.device) -> "Prefix":
        """Make an empty prefix of prompts that end at `last` and are ablated at `positions`.

        Both are on the CPU.
        """
        length = int((last - positions.amin(1)).max()) + 1
        start = (last + 1 - length).clamp_min(0)
        return cls(start.to(device), length, int(start.max()))

    @cached_property
    def suffix(self) -> Int[Tensor, "prompt suffix"]:
        """Return the positions of each prompt's suffix."""
        return self.start[:, None] + torch.arange(self.length, device=self.start.device)

    def keep(self, inputs: AttentionInputs) -> None:
        """Keep a block's keys and values before the suffix, and the suffix's rows of its mask."""
        block, key, mask = inputs.block, inputs.key, inputs.mask
        # The number of positions that are seen but don't see in this pass.
        before = mask.shape[-1] - mask.shape[-2]
        # Copies: a view would keep all that they are cut from.
        self.keys[block] = key[:, :, : self.before].clone()
        self.values[block] = inputs.value[:, :, : self.before].clone()
        prompts = torch.arange(len(key), device=key.device)[:, None]
        start, suffix = self.start.to(key.device), self.suffix.to(key.device)
        seen = mask.expand(len(key), -1, -1, -1)[prompts, 0, suffix - before]
        positions = torch.arange(self.before, device=key.device)
        self.visible[block] = seen[:, :, : self.before] & (positions < start[:, None, None])
        self.own[block] = seen.gather(2, suffix[:, None].expand(-1, self.length, -1))


@contextmanager
def attending(model: LanguageModel, attend: Attend) -> Iterator[None]:
    """Let the attention of every block of `model` call `attend` in here."""
    # `layer_idx` is no place: blocks may be taken out or reordered.
    blocks = {module: i for i, block in enumerate(model.blocks) for module in block.modules()}
    token, numbered = _attend.set(attend), _block_of.set(blocks)
    try:
        with attention_implementation(model, _NAME):
            yield
    finally:
        _attend.reset(token)
        _block_of.reset(numbered)


@contextmanager
def attention_implementation(model: LanguageModel, name: str) -> Iterator[None]:
    """Let every block of `model` attend by transformers' implementation called `name` in here."""
    configs = {id(module.config): module.config for module in model.hf.modules() if hasattr(module, "config")}.values()
    before = [config._attn_implementation for config in configs]
    try:
        for config in configs:
            config._attn_implementation = name
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = implementation


def causal_attention(prefix: Prefix, opening: Prefix | None = None) -> Attend:
    """Attend as the model itself does, and keep in `prefix` the keys and values that rows share.

    Args:
        prefix: takes the keys and values.
        opening: the keys and values `[1, head, position, head width]` of the positions before, if other positions than
            the first are run; equal for all prompts.
    """

    def attend(inputs: AttentionInputs) -> Tensor:
        if opening is not None:
            inputs = inputs.after(opening.keys[inputs.block], opening.values[inputs.block])
        prefix.keep(inputs)
        query, key, value = inputs.query, inputs.key, inputs.value
        if inputs.softcap is None and inputs.sinks is None:
            grouped = query.shape[1] != key.shape[1]
            fused = partial(F.scaled_dot_product_attention, scale=inputs.scaling, enable_gqa=grouped)
            # The kernel skips products if it isn't given a mask. A GPU would have to stop for the check.
            if query.device.type == "cpu" and is_causal(inputs.mask[:, 0]):
                return attend_by_blocks(
                    query, key, value, lambda q, k, v, mask: (fused(q, k, v, attn_mask=mask, is_causal=mask is None),)
                )[0]
            return fused(query, key, value, attn_mask=inputs.mask)
        key, value = inputs.per_query_head(key), inputs.per_query_head(value)
        scores = capped(query @ key.transpose(-1, -2) * inputs.scaling, inputs.softcap)
        weights = softmax(scores.masked_fill(~inputs.mask, -torch.inf), inputs.sinks)
        return weights.to(value.dtype) @ value

    return attend


def is_causal(mask: Bool[Tensor, "#prompt seeing seen"]) -> bool:
    """Return whether each position sees itself and all before; padding may see anything.

    False where positions are seen that don't see: the kernel would take the first of them for the first that sees.
    """
    if mask.shape[1] != mask.shape[2]:
        return False
    plain = torch.ones(mask.shape[1:], dtype=torch.bool, device=mask.device).tril()
    padding = ~mask.diagonal(dim1=1, dim2=2)
    return bool(((mask == plain).all(-1) | padding).all())


def row_attention(prefix: Prefix, take_weights: TakeWeights) -> Attend:
    """Let each row attend to its prompt's prefix and its own suffix.

    Queries, keys and values are `[prompt, head, row · suffix, head width]`. Those of some rows may be frozen before,
    head by head, so that keys and values have as many heads as queries.

    Args:
        take_weights: is called with the weights of each block.
    """

    def attend(inputs: AttentionInputs) -> Tensor:
        block, query, key, value = inputs.block, inputs.query, inputs.key, inputs.value
        prompts, heads, rows, width = query.shape
        kv_heads, length = prefix.keys[block].shape[1], prefix.length
        # Heads that share keys and values (grouped-query attention) are rows of one product.
        grouped = query.reshape(prompts, kv_heads, heads // kv_heads, rows, width)
        scores = grouped.flatten(2, 3) @ prefix.keys[block].transpose(-1, -2)
        before, suffixes = scores.shape[-1], rows // length
        scores = scores.view(prompts, heads, rows, before)
        by_key = query.reshape(prompts, key.shape[1], -1, rows, width)
        own = _own_scores(by_key, key, length).view(prompts, heads, rows, length)
        scores, own = (capped(each * inputs.scaling, inputs.softcap) for each in (scores, own))
        # [prompt, 1, 1, suffix, position]: the same for every head and row.
        hidden = ~prefix.visible[block][:, None, None]
        scores.view(prompts, heads, suffixes, length, before).masked_fill_(hidden, -torch.inf)
        if length > 1:
            unseen = ~prefix.own[block][:, None, None]
            own.view(prompts, heads, suffixes, length, length).masked_fill_(unseen, -torch.inf)
        weights = softmax(torch.cat([scores, own], dim=-1), inputs.sinks)
        take_weights(block, weights)
        weights = weights.to(value.dtype)
        shared = (
            weights[..., :before].reshape(prompts, kv_heads, heads // kv_heads * rows, before) @ prefix.values[block]
        )
        shared = shared.view(prompts, value.shape[1], -1, rows, value.shape[-1])
        own = weights[..., before:].reshape(prompts, value.shape[1], -1, rows, length)
        return _with_own(shared, own, value).flatten(1, 2)

    return attend


def with_frozen(prefix: Prefix, frozen_inputs: Callable[[int], FrozenInputs], attend: Attend) -> Attend:
    """Let `attend` take frozen queries, keys and values, those of row 0, in some heads and rows.

    Args:
        frozen_inputs: returns the frozen inputs of a block's heads.
    """
    return lambda inputs: attend(_freeze(inputs, frozen_inputs(inputs.block), prefix.length))


def with_clean_rows(prefix: Prefix, frozen_inputs: Callable[[int], FrozenInputs], attend: Attend) -> Attend:
    """Do the same, let row 0 attend alone, and copy it to rows with equal inputs.

    So row 0 doesn't depend on the other rows, and a row in which nothing has changed is row 0 to the bit.
    """

    def rows(each: Tensor) -> Tensor:
        by_row: Tensor = each.unflatten(2, (-1, prefix.length)).permute(0, 2, 3, 1, 4)
        return by_row

    def attend_equally(inputs: AttentionInputs) -> Tensor:
        query, key, value = (
            each[:, :, : prefix.length].contiguous() for each in (inputs.query, inputs.key, inputs.value)
        )
        clean = attend(replace(inputs, query=query, key=key, value=value))
        inputs = _freeze(inputs, frozen_inputs(inputs.block), prefix.length)
        out = attend(inputs)
        equal = _equal_heads(rows(inputs.query))
        if equal[:, 1:].any():
            seen = _equal_heads(rows(inputs.key)) & _equal_heads(rows(inputs.value))
            unequal = ~seen[:, :, None] & prefix.own[inputs.block][:, None]
            equal &= ~unequal.any(-1)
        write_clean(rows(out), equal, rows(clean))
        return out

    return attend_equally


def _equal_heads(rows: Tensor) -> Tensor:
    """Return whether all heads of a row equal row 0's, `[prompt, row, suffix]`."""
    # The first head is compared alone: most rows differ there, and the others needn't be looked at.
    equal = equal_to_first(rows[..., 0, :])
    if equal[:, 1:].any():
        equal &= (rows == rows[:, :1]).all(-1).all(-1)
    return equal


def _freeze(inputs: AttentionInputs, frozen: FrozenInputs, length: int) -> AttentionInputs:
    if not frozen:
        return inputs
    query, key, value = (
        _with_frozen(frozen.get(kind, []), each, inputs.query.shape[1], length)
        for kind, each in (("query", inputs.query), ("key", inputs.key), ("value", inputs.value))
    )
    return replace(inputs, query=query, key=key, value=value)


def _with_frozen(where: Sequence[tuple[int, slice]], each: Tensor, heads: int, length: int) -> Tensor:
    """Freeze queries, keys or values in some heads and rows; shared ones are repeated first."""
    if not where:
        return each
    own = each.repeat_interleave(heads // each.shape[1], 1).unflatten(2, (-1, length))
    for head, rows in where:
        own[:, head, rows] = own[:, head, :1].clone()
    frozen: Tensor = own.flatten(2, 3)
    return frozen


def _own_scores(query: Tensor, key: Tensor, length: int) -> Tensor:
    """Score each row's own suffix: `[prompt, head, group, row · suffix, suffix]`."""
    if length == 1:
        # A product of single numbers is faster as one pass than as many matrices.
        return (query * key[:, :, None]).sum(-1, keepdim=True)
    keys = key.unflatten(2, (-1, length))[:, :, None]
    scores: Tensor = (query.unflatten(3, (-1, length)) @ keys.transpose(-1, -2)).flatten(3, 4)
    return scores


def _with_own(shared: Tensor, weights: Tensor, value: Tensor) -> Tensor:
    """Add to `shared` the values of each row's own suffix."""
    length = weights.shape[-1]
    if length == 1:
        return torch.addcmul(shared, weights, value[:, :, None])
    values = value.unflatten(2, (-1, length))[:, :, None]
    taken: Tensor = (weights.unflatten(3, (-1, length)) @ values).flatten(3, 4)
    return shared + taken


def capped(scores: Tensor, softcap: float | None) -> Tensor:
    """Bound scores smoothly by the soft-cap, if there is one."""
    return scores if softcap is None else (scores / softcap).tanh() * softcap


def softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """Turn scores into weights, in float32 or wider; a head's sink takes weight and gives none."""
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
    attention_mask: Tensor,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **settings: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers asks for it."""
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    block = _block_of.get()[module]
    out = _attend.get()(AttentionInputs(block, query, key, value, attention_mask, scaling, softcap, s_aux))
    return out.transpose(1, 2).contiguous(), None


def _mask(**arguments: Any) -> Tensor | None:
    """Return the model's mask, always written out.

    The positions that see are the last of those that are seen.
    """
    offset = arguments["kv_length"] - arguments["q_length"]
    return sdpa_mask(**{**arguments, "q_offset": offset, "allow_is_causal_skip": False})


AttentionInterface.register(_NAME, _forward)
AttentionMaskInterface.register(_NAME, _mask)
