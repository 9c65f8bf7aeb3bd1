"""Show the tokens of a prompt in one line, for the start of a run."""

from collections.abc import Sequence
from typing import Any, Protocol

from hydrascope.utils.errors import printable

#: The longest line, in characters, and the part of it that a cut line keeps for the last tokens.
_LONGEST, _END = 88, 30


class Decodes(Protocol):
    """The properties of a language model that show its tokens."""

    tokenizer: Any

    def decode(self, token: int) -> str: ...


def tokens_line(model: Decodes, tokens: Sequence[int]) -> str:
    """Return the texts of tokens with bars between them; of a long prompt its two ends.

    Line breaks, tabs and characters that steer a terminal are escaped. A model without a tokenizer shows ids.

        >>> tokens_line(model, [2, 14, 4])
        'the|fox|is'
    """
    texts = [str(token) if model.tokenizer is None else one_line(model.decode(token)) for token in tokens]
    whole = "|".join(texts)
    if len(whole) <= _LONGEST:
        return whole
    first, last = "", ""
    for text in texts:
        if len(first) + len(text) > _LONGEST - _END - 3:
            break
        first += f"{text}|"
    for text in reversed(texts):
        if len(last) + len(text) > _END:
            break
        last = f"|{text}{last}"
    return f"{first or texts[0][: _LONGEST - _END] + '…|'}…{last or '|…' + texts[-1][-_END:]}"


def one_line(text: str) -> str:
    """Return a text with line breaks, tabs and characters that steer a terminal escaped."""
    return printable(text.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r"))
