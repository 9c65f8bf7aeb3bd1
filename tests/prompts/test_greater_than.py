"""The prompts for greater-than: which years stand in them, and where they end for which tokenizer."""

import re
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speaking import speaking
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts import greater_than
from hydrascope.prompts.token_ids import tokenize


def grouping(pattern: str) -> LanguageModel:
    """A model whose tokenizer reads numbers in the groups of a pattern, and all else character by character."""
    tokenizer = Tokenizer(models.WordLevel({}, unk_token="<unk>"))
    numbers = [f"{number:0{digits}}" for digits in (1, 2, 3) for number in range(10**digits)]
    others = map(chr, range(32, 127))
    vocabulary = {token: place for place, token in enumerate(dict.fromkeys(["<unk>", *others, *numbers, "–"]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(rf"{pattern}|\D"), "isolated")])
    tokenizer.decoder = decoders.Fuse()
    return speaking(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>"), 512)


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_the_answer_is_later_and_the_foil_is_not(seed: int) -> None:
    for prompt in islice(greater_than.prompts(seed), 30):
        start, century = re.findall(r"\d+", prompt.text)
        assert prompt.subject == start
        assert start.startswith(century)
        year = int(start[2:])
        assert (int(str(prompt.answer)), int(str(prompt.foil))) == (year + 10, year - 10)
        assert re.findall(r"\d+", str(prompt.counterfactual)) == [f"{century}01", century]
        assert re.sub(r"\d+", "", str(prompt.counterfactual)) == re.sub(r"\d+", "", prompt.text)
        assert prompt.template in greater_than.TEMPLATES


@pytest.mark.parametrize(
    ("pattern", "rest", "digits"), [(r"\d", 2, 1), (r"\d{2}", 2, 2), (r"\d{1,3}", 0, 3)], ids=["1", "2", "3"]
)
def test_a_prompt_ends_where_the_years_begin_to_differ(pattern: str, rest: int, digits: int) -> None:
    model = grouping(pattern)
    made, note = greater_than.fit(model, 50)
    whole = {prompt.text: prompt for prompt in islice(greater_than.prompts(), 50)}
    for prompt, tokens in zip(made, tokenize(model, made), strict=True):
        original = next(each for text, each in whole.items() if text[: len(text) - 2 + rest] == prompt.text)
        for token, year in ((prompt.answer, original.answer), (prompt.foil, original.foil)):
            assert isinstance(token, int)
            ids = model.encode(f"{original.text}{year}")
            assert ids[: len(tokens) + 1] == [*tokens, token]
        assert prompt.subject == original.subject
    assert f"{digits} digit" in note


def test_years_of_one_token_suit_no_prompt() -> None:
    model = grouping(r"\d{4}")
    assert greater_than.ended(model, next(greater_than.prompts())) is None
