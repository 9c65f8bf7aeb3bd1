"""Turn texts into token ids, and token ids into texts, as a model's tokenizer does."""

from functools import cached_property
from typing import Any

from hydrascope.utils.errors import HydrascopeError


class ReadsText:
    """Read texts with a tokenizer; the base of `LanguageModel`.

    Attributes:
        name: the model's name.
        tokenizer: its tokenizer; None if prompts must be token ids.
    """

    name: str
    tokenizer: Any

    def encode(self, text: str) -> list[int]:
        """Return the token ids of `text`, special tokens included.

        Tokens that the tokenizer appends are left out, since a prompt is read at its last token. A text that begins
        with the beginning-of-text token gets no second one.

            >>> model.encode("the fox is")
            [2, 14, 4]

        Raises:
            HydrascopeError: the model has no tokenizer.
        """
        # transformers would warn of long texts; the caller refuses them.
        ids = list(self._tokenizer(text, verbose=False)["input_ids"])
        return ids[self._own(text, ids)]

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the token ids of `text` as `encode` does, and the span of characters of each token.

        A span is the first character and the end. Special tokens have an empty span. Some tokenizers include the space
        before a word.

            >>> model.encode_with_offsets("the fox")
            ([2, 14], [(0, 3), (4, 7)])

        Raises:
            HydrascopeError: the tokenizer doesn't keep spans.
        """
        if not getattr(self._tokenizer, "is_fast", False):
            raise HydrascopeError(
                f"the tokenizer of {self.name} doesn't report the characters of its tokens: give positions by number, "
                "or a model with a fast tokenizer (tokenizer.json)"
            )
        encoded = self._tokenizer(text, return_offsets_mapping=True)
        own = self._own(text, list(encoded["input_ids"]))
        return list(encoded["input_ids"])[own], [(start, end) for start, end in encoded["offset_mapping"]][own]

    def _own(self, text: str, ids: list[int]) -> slice:
        """Return the slice of `ids` that `encode` keeps."""
        bos, begin = self._tokenizer.bos_token, self._tokenizer.bos_token_id
        twice = bos is not None and text.startswith(bos) and ids[:2] == [begin, begin]
        appended = len(self.appended) if self.appended and tuple(ids[-len(self.appended) :]) == self.appended else 0
        return slice(int(twice), len(ids) - appended)

    @cached_property
    def appended(self) -> tuple[int, ...]:
        """The tokens that the tokenizer appends to every text; mostly none."""
        if self.tokenizer is None:
            return ()
        whole = list(self.tokenizer("a")["input_ids"])
        own = list(self.tokenizer("a", add_special_tokens=False)["input_ids"])
        starts = [start for start in range(len(whole) - len(own) + 1) if whole[start : start + len(own)] == own]
        return tuple(whole[starts[0] + len(own) :]) if own and starts else ()

    def decode(self, token: int) -> str:
        """Return the text of one token, with the spaces before it.

        SentencePiece marks spaces by ▁, and its decoding drops the first space of a text.

            >>> model.decode(14)
            'fox'
        """
        text, piece = str(self._tokenizer.decode([token])), str(self._tokenizer.convert_ids_to_tokens(token))
        spaces = len(piece) - len(piece.lstrip("▁"))
        return " " * spaces + text.lstrip(" ") if spaces else text

    @property
    def _tokenizer(self) -> Any:
        if self.tokenizer is None:
            raise HydrascopeError(f"the model {self.name} was made without a tokenizer: give token ids")
        return self.tokenizer
