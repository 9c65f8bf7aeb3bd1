"""The IOI prompts: what a prompt and its twin are, that any first prompts are balanced, and how they fit a model."""

import re
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speaking import byte_level, speaking
from tiny import tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts import ioi
from hydrascope.prompts.answers import answer_tokens, foil_tokens
from hydrascope.prompts.load import load_prompts
from hydrascope.prompts.made import one_token_words
from hydrascope.prompts.subjects import subject_span
from hydrascope.prompts.token_ids import tokenize
from hydrascope.prompts.twins import counterfactual_tokens, require_same_length
from hydrascope.utils import assets
from hydrascope.utils.errors import HydrascopeError


def names_in(text: str) -> list[str]:
    """The names of a text, in their order."""
    return [word for word in re.findall(r"\w+", text) if word in ioi.NAMES]


def blanked(text: str) -> str:
    """The text with a blank for each name."""
    return re.sub(r"\w+", lambda word: "_" if word[0] in ioi.NAMES else word[0], text)


@given(st.integers(0, 10**6), st.integers(1, 120), st.integers(5, len(ioi.NAMES)))
@settings(max_examples=15, deadline=None)
def test_a_prompt_is_completed_by_the_name_that_stands_once(seed: int, count: int, names: int) -> None:
    made = list(islice(ioi.prompts(ioi.NAMES[:names], seed), count))
    assert len({prompt.text for prompt in made}) == count
    for prompt in made:
        first, second, giver = names_in(prompt.text)
        assert first != second
        assert prompt.foil == prompt.subject == giver
        assert {prompt.answer, giver} == {first, second}
        assert isinstance(prompt.counterfactual, str)
        twin = names_in(prompt.counterfactual)
        assert len({*twin, first, second}) == 5
        assert {*twin, first, second} <= {*ioi.NAMES[:names]}
        assert blanked(prompt.counterfactual) == blanked(prompt.text)


@pytest.mark.slow
@given(st.integers(0, 10**6), st.integers(1, 300))
@settings(max_examples=10, deadline=None)
def test_any_first_prompts_are_balanced_over_sentences_and_orders(seed: int, count: int) -> None:
    made = islice(ioi.prompts(seed=seed), count)
    seen = Counter((blanked(prompt.text), names_in(prompt.text)[0] == prompt.answer) for prompt in made)
    kinds = 2 * len(ioi.TEMPLATES)
    assert len(seen) == min(count, kinds)
    assert set(seen.values()) <= {count // kinds, -(-count // kinds)}


def test_all_prompts_that_the_names_allow_are_made() -> None:
    made = [prompt.text for prompt in ioi.prompts(ioi.NAMES[:6])]
    assert len(made) == len(set(made)) == 2 * len(ioi.TEMPLATES) * 6 * 5


def test_the_set_is_the_same_every_time() -> None:
    made = load_prompts("ioi")
    assert (made.name, len(made.prompts), made.duplicates) == ("ioi", 1000, 0)
    assert made == load_prompts("ioi")
    assert [*islice(ioi.prompts(seed=0), 5)] != [*islice(ioi.prompts(seed=1), 5)]
    assert len(ioi.TEMPLATES) == len({*ioi.TEMPLATES}) == 12
    assert len(ioi.NAMES) == len({*ioi.NAMES}) == 100


@pytest.fixture(scope="module", params=["all names", "some names", "built-in"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    """Models whose tokenizers have one token for all of the names, for some."""
    if request.param == "built-in":
        return speaking(AutoTokenizer.from_pretrained(assets.model_path("built-in")))
    learnt = ioi.NAMES if request.param == "all names" else ioi.NAMES[:30]
    return speaking(byte_level([f" {name}" for name in learnt] * 3 + [*ioi.TEMPLATES], 4000))


def test_fitted_prompts_and_their_twins_are_as_long_position_by_position(model: LanguageModel) -> None:
    fitted, said = load_prompts("ioi").limit(200).fit_to(model)
    assert len(fitted.prompts) == 200
    tokens, twins = tokenize(model, fitted.prompts), counterfactual_tokens(model, fitted.prompts)
    require_same_length(fitted.prompts, tokens, twins)
    answers, foils = answer_tokens(model, fitted.prompts), foil_tokens(model, fitted.prompts)
    for number, (prompt, own, twin, answer, foil) in enumerate(
        zip(fitted.prompts, tokens, twins, answers, foils, strict=True), start=1
    ):
        # They differ at three positions: two hold the foil, the last of them as the subject, and one the answer.
        places = [at for at, (one, other) in enumerate(zip(own, twin, strict=True)) if one != other]
        assert Counter(own[at] for at in places) == {answer: 1, foil: 2}
        assert subject_span(model, number, prompt) == (places[-1], places[-1] + 1)
        assert model.decode(foil).strip() == prompt.foil
        assert model.decode(answer).strip() == prompt.answer
    assert said.endswith("200 prompts use them")


def test_names_of_several_tokens_are_left_out(model: LanguageModel) -> None:
    alone = [name for name in ioi.NAMES if len(model.encode(f"to {name}")) == 1 + len(model.encode("to"))]
    assert 5 <= len(alone) <= 100
    assert one_token_words(model, ioi.NAMES) == alone
    fitted, said = load_prompts("ioi").fit_to(model)
    assert {name for prompt in fitted.prompts for name in names_in(prompt.text)} == {*alone}
    assert said.startswith(f"ioi: {len(alone)} of 100 names are one token for toy")


def test_few_names_give_what_prompts_they_can() -> None:
    model = speaking(byte_level([f" {name}" for name in ioi.NAMES[:5]] * 3 + ["Then"], 500))
    fitted, said = load_prompts("ioi").fit_to(model)
    assert len(fitted.prompts) == 2 * len(ioi.TEMPLATES) * 5 * 4
    assert said == "ioi: 5 of 100 names are one token for toy: 480 prompts use them"


def test_a_model_without_such_names_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"<unk>": 0, "Mary": 1, "John": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    for tokenizer, count in ((tiny_tokenizer(), 0), (PreTrainedTokenizerFast(tokenizer_object=words), 2)):
        with pytest.raises(HydrascopeError, match=rf"ioi needs 5 names .* toy has {count}: choose another"):
            load_prompts("ioi").fit_to(speaking(tokenizer))
