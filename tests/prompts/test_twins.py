"""The facts' twins and foils: that each is a fact of its own, as long, and told apart by its first token."""

from collections import Counter

import pytest
from speaking import speaking
from transformers import AutoTokenizer

from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.answers import after_spaces, answer_tokens, foil_tokens
from hydrascope.prompts.load import load_prompts
from hydrascope.prompts.subjects import subject_span
from hydrascope.prompts.token_ids import tokenize
from hydrascope.prompts.twins import counterfactual_tokens
from hydrascope.utils import assets
from training.lines import Line, read
from training.twins import with_twins

FACTS = read(assets.prompt_path("world-facts"))


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return speaking(AutoTokenizer.from_pretrained(assets.model_path("built-in")))


def parts(line: Line) -> tuple[str, str]:
    """What stands before and after the subject."""
    before, _, after = line["prompt"].rpartition(line["subject"])
    return before, after


def test_a_twin_is_another_fact_in_the_same_words_and_the_foil_its_answer() -> None:
    answers = {(line["relation"], line["subject"]): line["answer"] for line in FACTS}
    assert len(answers) == len(FACTS)
    for line in FACTS:
        before, after = parts(line)
        twin = line["counterfactual"]
        assert twin.startswith(before)
        assert twin.endswith(after)
        other = twin[len(before) : len(twin) - len(after)]
        assert other != line["subject"]
        assert answers[line["relation"], other] == line["foil"] != line["answer"]


@pytest.mark.slow
def test_nearly_all_twins_are_as_long_and_none_is_more_than_a_token_off(model: LanguageModel) -> None:
    prompts = load_prompts("world-facts").prompts
    tokens, twins = tokenize(model, prompts), counterfactual_tokens(model, prompts)
    off = Counter(abs(len(own) - len(twin)) for own, twin in zip(tokens, twins, strict=True))
    assert off == {0: 4195, 1: 12}


@pytest.mark.slow
def test_answer_and_foil_begin_with_different_tokens(model: LanguageModel) -> None:
    prompts = load_prompts("world-facts").prompts
    # Reading the foils refuses those that don't.
    assert len(foil_tokens(model, prompts, in_pairs=True)) == len(FACTS)
    # Two answers begin with a bare space.
    alone, spaced = after_spaces(model, prompts)
    assert (spaced, len(answer_tokens(model, alone))) == (2, len(FACTS))


def test_every_subject_is_where_the_wording_has_it(model: LanguageModel) -> None:
    for number, (line, prompt) in enumerate(zip(FACTS, load_prompts("world-facts").prompts, strict=True), start=1):
        before, after = parts(line)
        start, end = subject_span(model, number, prompt)
        ids = model.encode(line["prompt"])
        assert model.tokenizer.decode(ids[1:start]).strip() == before.strip()
        assert model.tokenizer.decode(ids[start:end]).strip() == line["subject"]
        assert model.tokenizer.decode(ids[end:]) == after


@pytest.mark.slow
def test_they_are_drawn_anew_as_they_are_shipped() -> None:
    bare = [{key: value for key, value in line.items() if key not in ("foil", "counterfactual")} for line in FACTS]
    assert with_twins(bare, AutoTokenizer.from_pretrained(assets.model_path("built-in"))) == FACTS


def test_other_seeds_draw_other_twins_and_few_facts_make_do() -> None:
    tokenizer = AutoTokenizer.from_pretrained(assets.model_path("built-in"))
    some = [line for line in FACTS if line["relation"] == "capital"]
    assert with_twins(some, tokenizer, seed=1) != with_twins(some, tokenizer, seed=2)
    pair = [
        {"prompt": "Fe is", "answer": "iron", "subject": "Fe", "relation": "element"},
        {"prompt": "Au stands for", "answer": "iron ore", "subject": "Au", "relation": "element"},
    ]
    assert [(line["foil"], line["counterfactual"]) for line in with_twins(pair, tokenizer)] == [
        ("iron ore", "Au is"),
        ("iron", "Fe stands for"),
    ]
