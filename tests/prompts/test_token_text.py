"""Bytes that are no text of their own are shown as bytes."""

from dataclasses import dataclass
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from hydrascope.prompts.token_text import visible_text


@dataclass
class Model:
    """A model's tokenizer, as far as texts of tokens need it."""

    tokenizer: Any

    def decode(self, token: int) -> str:
        return str(self.tokenizer.decode([token]))


def of(pieces: list[str], decoder: Any) -> Model:
    tokenizer = Tokenizer(models.WordLevel({piece: number for number, piece in enumerate(pieces)}, unk_token=pieces[0]))
    tokenizer.decoder = decoder
    return Model(PreTrainedTokenizerFast(tokenizer_object=tokenizer))


def test_byte_fallback():
    pieces = ["<unk>", "<0x0A>", "<0xE2>", "cat", "<0x0A", "<b>"]
    model = of(pieces, decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()]))
    assert model.decode(1) == "\n"
    assert "\ufffd" in model.decode(2)
    assert [visible_text(model, token) for token in range(1, 6)] == ["<0x0A>", "<0xE2>", "cat", "<0x0A", "<b>"]


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b"\xe2", "<0xE2>"),
        (b"\xe2\x82", "<0xE2><0x82>"),
        ("€".encode(), "€"),
        (b" \xe2\x82\xac\xf0\x9f", " €<0xF0><0x9F>"),
        (b"\x80a", "<0x80>a"),
        (b"\n", "\n"),
        (b" cat", " cat"),
        ("\ufffd".encode(), "\ufffd"),
    ],
)
def test_byte_level(content, shown):
    """Compare with transformers' own table of letters."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = bytes_to_unicode()
    model = of(["<unk>", "".join(letters[byte] for byte in content)], decoders.ByteLevel())
    assert visible_text(model, 1) == shown


def test_without_a_tokenizer():
    assert visible_text(Model(None), 7) == "7"
