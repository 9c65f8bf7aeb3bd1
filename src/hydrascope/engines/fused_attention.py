"""Let rows attend by PyTorch's fused kernels, which never write scores out.

The kernel gives the output over the shared prefix, and the logarithm of its normaliser. With the score of each row's
own last positions that is enough to join the two parts exactly.
"""

import torch
from torch import Tensor

from hydrascope.engines.attention import Attend, AttentionInputs, Prefix, is_causal, row_attention
from hydrascope.engines.causal_blocks import attend_by_blocks


def fused_row_attention(prefix: Prefix) -> Attend:
    """Let each row attend as under `row_attention`, by fused kernels where there is one.

    No gradient goes through it, and it keeps no weights. Soft-caps, sinks, sliding windows shorter than a prompt, and
    other devices than the CPU have no such kernel: there `row_attention` attends.
    """
    plain = row_attention(prefix, lambda block, weights: None)

    def attend(inputs: AttentionInputs) -> Tensor:
        if not _has_kernel(prefix, inputs):
            return plain(inputs)
        return _over_prefix_and_suffix(prefix, inputs) if prefix.before else _over_suffix(prefix, inputs)[0]

    return attend


def _has_kernel(prefix: Prefix, inputs: AttentionInputs) -> bool:
    visible, own = prefix.visible[inputs.block], prefix.own[inputs.block]
    return (
        inputs.query.device.type == "cpu"
        and inputs.softcap is None
        and inputs.sinks is None
        and inputs.query.shape[-1] == inputs.value.shape[-1]
        and (prefix.length == 1 or is_causal(own))
        # A mask of its own for each position of a suffix would have to be written out for all rows.
        and (prefix.before == 0 or (bool((visible == visible[:, :1]).all()) and bool(visible.any(-1).all())))
    )


def _over_prefix_and_suffix(prefix: Prefix, inputs: AttentionInputs) -> Tensor:
    """Attend to the shared prefix and the own suffix, `[prompt, head, row · suffix, width]`."""
    query, keys, values = inputs.query, prefix.keys[inputs.block], prefix.values[inputs.block]
    visible = prefix.visible[inputs.block][:, 0]
    # Heads that share keys and values (grouped-query attention) are rows of one product.
    grouped = query.unflatten(1, (keys.shape[1], -1)).flatten(2, 3)
    mask = None
    if not visible.all():
        shown = torch.zeros_like(visible, dtype=query.dtype).masked_fill_(~visible, -torch.inf)
        mask = shown[:, None, None].expand(-1, 1, grouped.shape[2], -1)
    shared, normaliser = _flash(grouped, keys, values, inputs.scaling, mask)
    shared, normaliser = shared.reshape(query.shape), normaliser.reshape(query.shape[:3])
    if prefix.length > 1:
        own, own_normaliser = _over_suffix(prefix, inputs)
    else:
        own = inputs.value
        scores = (query.unflatten(1, (inputs.key.shape[1], -1)) * inputs.key[:, :, None]).sum(-1)
        own_normaliser = scores.flatten(1, 2) * inputs.scaling
    share = (own_normaliser.to(normaliser.dtype) - normaliser).sigmoid().to(shared.dtype)
    heads = (own.shape[1], -1)
    joined: Tensor = shared.unflatten(1, heads).lerp(own[:, :, None], share.unflatten(1, heads)[..., None])
    return joined.flatten(1, 2)


def _over_suffix(prefix: Prefix, inputs: AttentionInputs) -> tuple[Tensor, Tensor]:
    """Attend to the own suffix; return the output and the logarithm of the normaliser."""
    length, heads = prefix.length, inputs.query.shape[1]

    def by_row(each: Tensor) -> Tensor:
        rows: Tensor = each.unflatten(2, (-1, length)).transpose(1, 2).flatten(0, 1)
        group = heads // each.shape[1]
        return rows if group == 1 else rows.repeat_interleave(group, 1)

    query, key, value = (by_row(each) for each in (inputs.query, inputs.key, inputs.value))
    out, normaliser = attend_by_blocks(
        query, key, value, lambda q, k, v, mask: _flash(q, k, v, inputs.scaling, mask, causal=mask is None)
    )
    prompts = (len(inputs.query), -1)
    out, normaliser = (each.unflatten(0, prompts).transpose(1, 2).flatten(2, 3) for each in (out, normaliser))
    return out, normaliser


def _flash(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, mask: Tensor | None = None, *, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """Return attention's output and the logarithm of its normaliser."""
    # The public function keeps the normaliser to itself.
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    out, normaliser = kernel(query, key, value, 0.0, causal, attn_mask=mask, scale=scaling)
    return out, normaliser
