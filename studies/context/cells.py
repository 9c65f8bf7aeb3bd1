"""The texts of the study, and the prompts of each cell: one prefix before every sentence."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hydrascope.prompts.prompt import Tokenizes
from hydrascope.utils.errors import HydrascopeError

_PATH = Path(__file__).parent / "sentences.json"


class Text(NamedTuple):
    """A sentence up to the cut, and the text that stands before it.

    Attributes:
        source: the source of both.
        before: the true context, at least 512 tokens long.
        sentence: the sentence.
    """

    source: str
    before: str
    sentence: str


class Cell(NamedTuple):
    """The prefix before the sentences of a cell.

    Attributes:
        context: `true`, `other`, or `newline` where there is nothing else.
        length: the number of tokens before the sentence, the newline included.
    """

    context: str
    length: int

    @classmethod
    def parse(cls, label: str) -> "Cell":
        """Return the cell of a label.

        >>> Cell.parse("other.512")
        Cell(context='other', length=512)
        """
        context, length = label.split(".")
        return cls(context, int(length))


def read_texts() -> list[Text]:
    """Return all texts, those of the exploration half first; sources take turns."""
    return [Text(**each) for each in json.loads(_PATH.read_text("utf-8"))["texts"]]


def prompts_of(model: Tokenizes, texts: Sequence[Text], cell: Cell) -> list[tuple[int, ...]]:
    """Return the token ids of each text's sentence behind the prefix of a cell.

    The other text is the one before the next sentence, the first one's for the last.

        prompts_of(model, texts, Cell("true", 8))[0]  # 7 tokens of the text before, a newline, the sentence

    Args:
        model: its tokenizer is used; tokens that it puts first stay first, and aren't counted.
        texts: the texts of a half.
        cell: the cell.

    Raises:
        HydrascopeError: a newline is no token of its own, or a text is too short.
    """
    newline = model.encode("\n")
    contexts = [*texts[1:], texts[0]] if cell.context == "other" else texts
    found = []
    for text, context in zip(texts, contexts, strict=True):
        ids = model.encode(f"\n{text.sentence}")
        before = model.encode(context.before)[len(newline) - 1 :]
        if ids[: len(newline)] != newline:
            raise HydrascopeError(f"the tokenizer of {model.name} joins a newline and “{text.sentence[:20]}…”")
        if len(before) < cell.length - 1:
            raise HydrascopeError(f"a text has {len(before)} tokens in {model.name}: {cell.length - 1} are needed")
        prefix = before[len(before) - (cell.length - 1) :]
        found.append((*newline[:-1], *prefix, *ids[len(newline) - 1 :]))
    return found
