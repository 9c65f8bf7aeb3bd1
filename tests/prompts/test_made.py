"""Sets made for a tokenizer: balanced rounds, words of one token, and what holds for the prompts of every set."""

from collections import Counter
from itertools import islice
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from knowing import built_in, knowing
from rest_slow import rest_slow
from speaking import byte_level, speaking
from tiny import tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.answers import answer_tokens, foil_tokens
from hydrascope.prompts.load import MADE, load_prompts
from hydrascope.prompts.made import fitting, one_token_words, rounds
from hydrascope.prompts.prompt import Prompt
from hydrascope.prompts.subjects import subject_span
from hydrascope.prompts.token_ids import tokenize
from hydrascope.prompts.twins import counterfactual_tokens, require_same_length
from hydrascope.utils.errors import HydrascopeError

#: Every set with a model that it suits.
SUITED = [("knowing", name) for name in MADE] + [("built-in", name) for name in MADE if name != "agreement"]


def model_called(name: str) -> LanguageModel:
    return knowing() if name == "knowing" else built_in()


@pytest.mark.parametrize(("model_name", "name"), rest_slow(SUITED, ("knowing",)))
def test_fitted_prompts_are_read_as_they_are_meant(model_name: str, name: str) -> None:
    model = model_called(model_name)
    fitted, note = load_prompts(name).limit(120).fit_to(model)
    assert note.startswith(f"{name}: ")
    assert len({prompt.text for prompt in fitted.prompts}) == len(fitted.prompts) == 120
    tokens, twins = tokenize(model, fitted.prompts), counterfactual_tokens(model, fitted.prompts)
    require_same_length(fitted.prompts, tokens, twins)
    answers, foils = answer_tokens(model, fitted.prompts), foil_tokens(model, fitted.prompts)
    for number, (prompt, own, twin, answer, foil) in enumerate(
        zip(fitted.prompts, tokens, twins, answers, foils, strict=True), start=1
    ):
        for token, continuation in ((answer, prompt.answer), (foil, prompt.foil)):
            assert model.decode(token).strip() == continuation or token == continuation
        first, end = subject_span(model, number, prompt)
        assert "".join(map(model.decode, own[first:end])).strip() == prompt.subject
        # The subject is among what the twin changes.
        assert own[first:end] != twin[first:end]
        assert own[-1] == twin[-1]


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_a_model_that_suits_no_set_is_refused_in_one_line(name: str) -> None:
    words = Tokenizer(models.WordLevel({"<unk>": 0, "is": 1, "are": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    for tokenizer in (tiny_tokenizer(), PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")):
        with pytest.raises(HydrascopeError, match=rf"the (prompt )?set {name} .*toy.*: choose another") as caught:
            load_prompts(name).fit_to(speaking(tokenizer))
        assert "\n" not in str(caught.value)


@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 7))
@settings(max_examples=30, deadline=None)
def test_rounds_are_balanced_and_hold_no_text_twice(seed: int, count: int, kinds: int) -> None:
    def make(kind: int, rng: Random) -> Prompt:
        return Prompt(f"{kind} {rng.random()}")

    made = list(islice(rounds(range(kinds), make, seed), count))
    assert len({prompt.text for prompt in made}) == count
    seen = Counter(prompt.text.split()[0] for prompt in made)
    assert set(seen.values()) <= {count // kinds, -(-count // kinds)}
    assert made == list(islice(rounds(range(kinds), make, seed), count))


def test_rounds_end_when_a_kind_has_no_new_prompt() -> None:
    made = [prompt.text for prompt in rounds("ab", lambda kind, rng: Prompt(f"{kind}{rng.randrange(3)}"))]
    assert len(made) == len(set(made))
    assert 5 <= len(made) <= 6
    assert {"a0", "a1", "a2"} <= {*made} or {"b0", "b1", "b2"} <= {*made}


def test_words_of_several_tokens_or_none_of_their_own_are_left_out() -> None:
    model = speaking(byte_level([" fox", " frog", "the"] * 3, 400))
    assert one_token_words(model, ["fox", "platypus", "frog"]) == ["fox", "frog"]
    words = Tokenizer(models.WordLevel({"<unk>": 0, "the": 1, "fox": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    model = speaking(PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>"))
    assert one_token_words(model, ["fox", "frog", "swan"]) == ["fox"]


def test_only_prompts_that_suit_the_tokenizer_are_kept() -> None:
    model = speaking(byte_level([" fox", " frog", " red", " green", "the"] * 3, 400))
    good = Prompt("the fox", "red", foil="green", counterfactual="the frog")
    longer = Prompt("the fox", "red", foil="green", counterfactual="the platypus")
    alike = Prompt("the fox", "red", foil="red", counterfactual="the frog")
    assert fitting(model, "toys", [longer, good, alike, good], 9) == [good, good]
    assert fitting(model, "toys", [good, good], 1) == [good]
    with pytest.raises(HydrascopeError, match="no prompt of the set toys suits the tokenizer of toy: choose another"):
        fitting(model, "toys", [longer, alike], 9)
