"""Texts of tokens for readers: bytes that are no text of their own are written as bytes."""

import re
from functools import cache
from typing import Any, Protocol

#: How a vocabulary with byte fallback writes a byte.
_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


class Decodes(Protocol):
    """The properties of a language model that show its tokens."""

    tokenizer: Any

    def decode(self, token: int) -> str: ...


def visible_text(model: Decodes, token: int) -> str:
    r"""Return the text of a token; a byte that is no whole character reads as `<0x0A>`.

    So do a byte of a vocabulary with byte fallback, and each byte of a byte-level token that isn't part of a whole
    character in it. A model without a tokenizer shows ids.

        >>> visible_text(model, 14)
        'fox'
    """
    if model.tokenizer is None:
        return str(token)
    piece, text = str(model.tokenizer.convert_ids_to_tokens(token)), model.decode(token)
    if _BYTE.fullmatch(piece):
        return piece
    if "\ufffd" not in text or any(letter not in _byte_letters() for letter in piece):
        return text
    return _visible_bytes(bytes(_byte_letters()[letter] for letter in piece))


def _visible_bytes(content: bytes) -> str:
    """Return what is whole characters as text, and every other byte as `<0x..>`."""
    escaped = content.decode("utf-8", "surrogateescape")
    return "".join(f"<0x{ord(each) - 0xDC00:02X}>" if "\udc80" <= each <= "\udcff" else each for each in escaped)


@cache
def _byte_letters() -> dict[str, int]:
    """Return the byte that each letter of a byte-level vocabulary stands for (that of GPT-2)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}
