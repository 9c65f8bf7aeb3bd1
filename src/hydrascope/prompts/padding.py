"""Remove padding from token ids, since the model is read at a prompt's last token."""

from collections.abc import Sequence
from typing import Any

from hydrascope.utils.errors import HydrascopeError


def unpadded(tokenizer: Any, prompts: Sequence[tuple[int, ...]], names: Sequence[str]) -> list[tuple[int, ...]]:
    """Return token ids without padding.

    Padding is: the padding token at either end; any one token before the beginning-of-text token, also repeated; the
    unknown or the end-of-text token, twice or more at the end. If the padding token is also the beginning-of-text
    token, one of them is kept.

        unpadded(tokenizer, [(0, 0, 0, 306, 490)], ["prompt 1"])  # [(306, 490)], if 0 is the padding token

    Args:
        tokenizer: the tokenizer of the model; with None all ids are kept.
        prompts: the token ids of each prompt.
        names: the name of each prompt in messages.

    Raises:
        HydrascopeError: a prompt is nothing but padding, or it can't be told whether a token is padding.
    """
    if tokenizer is None:
        return list(prompts)
    pad, bos = tokenizer.pad_token_id, tokenizer.bos_token_id
    if pad is not None and pad == bos and not _adds(tokenizer, bos):
        _require_unpadded(prompts, names, pad)
    stripped = [_without_end(tokenizer, _without_start(prompt, pad, bos)) for prompt in prompts]
    for ids, name in zip(stripped, names, strict=True):
        if not ids:
            raise HydrascopeError(f"{name} is nothing but padding: remove it")
    return stripped


def _without_start(ids: tuple[int, ...], pad: int | None, bos: int | None) -> tuple[int, ...]:
    first = ids.index(bos) if bos in ids else 0
    if first and len(set(ids[:first])) == 1:
        ids = ids[first:]
    count = _leading(ids, pad)
    if pad == bos:
        count -= 1
    return ids[max(count, 0) :]


def _without_end(tokenizer: Any, ids: tuple[int, ...]) -> tuple[int, ...]:
    for token, least in ((tokenizer.pad_token_id, 1), (tokenizer.eos_token_id, 2), (tokenizer.unk_token_id, 2)):
        count = _leading(ids[::-1], token)
        if count >= least:
            return ids[: len(ids) - count]
    return ids


def _leading(ids: Sequence[int], token: int | None) -> int:
    """Return the number of times that `token` is repeated at the start of `ids`."""
    return next((index for index, other in enumerate(ids) if other != token), len(ids))


def _adds(tokenizer: Any, token: int) -> bool:
    return token in tokenizer("a")["input_ids"]


def _require_unpadded(prompts: Sequence[tuple[int, ...]], names: Sequence[str], pad: int) -> None:
    counts = [_leading(ids, pad) for ids in prompts]
    mixed = len(set(counts)) > 1 and len(set(map(len, prompts))) == 1
    for count, name in zip(counts, names, strict=True):
        if count > 1 or (count and mixed):
            raise HydrascopeError(
                f"{name} begins with {count:,} tokens ({pad}) that may be padding or begin the text: remove the "
                "padding, or give the attention_mask with the ids"
            )
