"""Padding of prompts that are given as token ids: taken away, since the model is read at their last token."""

from collections.abc import Sequence
from typing import Any

from hydrascope.utils.errors import HydrascopeError


def unpadded(tokenizer: Any, prompts: Sequence[tuple[int, ...]], names: Sequence[str]) -> list[tuple[int, ...]]:
    """Return token ids without padding.

    Padding is the tokenizer's padding token at either end; any one token, repeated before the first token of all; and
    the unknown or the end-of-text token, twice or more at the end. Where the padding token also begins a text, only
    a tokenizer that adds it by default tells how often it belongs there.

    Args:
        tokenizer: the model's; without one all ids are taken as they are.
        prompts: each one's token ids.
        names: what a message calls each.

    Raises:
        HydrascopeError: a prompt may be padded or not, or holds nothing else.
    """
    if tokenizer is None:
        return list(prompts)
    pad, bos = tokenizer.pad_token_id, tokenizer.bos_token_id
    if pad is not None and pad == bos and not _adds(tokenizer, bos):
        _require_unpadded(prompts, names, pad)
    found = [_without_end(tokenizer, _without_start(prompt, pad, bos)) for prompt in prompts]
    for ids, name in zip(found, names, strict=True):
        if not ids:
            raise HydrascopeError(f"{name} is nothing but padding: remove it")
    return found


def _without_start(ids: tuple[int, ...], pad: int | None, bos: int | None) -> tuple[int, ...]:
    first = ids.index(bos) if bos in ids else 0
    if first and len(set(ids[:first])) == 1:
        ids = ids[first:]
    count = _run(ids, pad)
    if pad == bos:
        count -= 1
    return ids[max(count, 0) :]


def _without_end(tokenizer: Any, ids: tuple[int, ...]) -> tuple[int, ...]:
    for token, least in ((tokenizer.pad_token_id, 1), (tokenizer.eos_token_id, 2), (tokenizer.unk_token_id, 2)):
        count = _run(ids[::-1], token)
        if count >= least:
            return ids[: len(ids) - count]
    return ids


def _run(ids: Sequence[int], token: int | None) -> int:
    """Return how many of the first ids are `token`."""
    return next((place for place, each in enumerate(ids) if each != token), len(ids))


def _adds(tokenizer: Any, token: int) -> bool:
    return token in tokenizer("a")["input_ids"]


def _require_unpadded(prompts: Sequence[tuple[int, ...]], names: Sequence[str], pad: int) -> None:
    counts = [_run(ids, pad) for ids in prompts]
    mixed = len(set(counts)) > 1 and len(set(map(len, prompts))) == 1
    for count, name in zip(counts, names, strict=True):
        if count > 1 or (count and mixed):
            raise HydrascopeError(
                f"{name} begins with {count:,} padding tokens ({pad}), which also begin a text: remove the padding, or "
                "give the attention_mask with the ids"
            )
