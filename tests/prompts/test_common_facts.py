"""Test the set `common-facts`: its facts, balance, foils and twins, and that the script makes the file."""

import re
from collections import Counter
from itertools import pairwise

import pytest
from speaking import speaking
from transformers import AutoTokenizer

from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.answers import answer_tokens, foil_tokens
from hydrascope.prompts.load import load_prompts
from hydrascope.prompts.subjects import subject_span
from hydrascope.prompts.token_ids import tokenize
from hydrascope.prompts.twins import counterfactual_tokens
from hydrascope.utils import assets
from training import common_facts
from training.common_facts import WORDINGS, Fact, built_in_first_token, lines, near, table, words
from training.lines import read

LINES = read(assets.prompt_path("common-facts"))
FACTS = table()
ANSWERS = {(fact.relation, fact.subject): fact.answer for fact in FACTS}
LENGTHS = {(fact.relation, fact.subject): fact.lengths for fact in FACTS}

SCALES = [
    line.split()
    for line in (
        "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z",
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen twenty",
        "ten twenty thirty forty fifty sixty seventy eighty ninety",
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth",
    )
]
CYCLES = [
    line.split()
    for line in (
        "January February March April May June July August September October November December",
        "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    )
]


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return speaking(AutoTokenizer.from_pretrained(assets.model_path("built-in")))


def facts(relation: str) -> dict[str, str]:
    """Return the answers of a relation, by subject."""
    return {fact.subject: fact.answer for fact in FACTS if fact.relation == relation}


@pytest.mark.slow
def test_the_file_is_what_the_script_makes() -> None:
    assert lines(FACTS, built_in_first_token()) == LINES


def test_it_holds_many_facts_of_many_relations_none_of_which_is_large() -> None:
    counts = Counter(line["relation"] for line in LINES)
    assert sum(counts.values()) == len(LINES) == len(FACTS) >= 1500
    assert set(counts) == set(WORDINGS)
    assert len(counts) >= 30
    assert max(counts.values()) <= 0.06 * len(LINES)


@pytest.mark.parametrize("first", [200, 500])
def test_the_first_of_it_are_balanced_too(first: int) -> None:
    whole = Counter(line["relation"] for line in LINES)
    some = Counter(line["relation"] for line in LINES[:first])
    for relation, count in whole.items():
        assert abs(some[relation] - first * count / len(LINES)) <= 1


def test_every_line_has_all_fields_and_no_prompt_comes_twice() -> None:
    for line in LINES:
        assert list(line) == ["prompt", "answer", "foil", "subject", "counterfactual", "relation"]
        assert all(text and text == text.strip() for text in line.values())
    assert len({line["prompt"].lower() for line in LINES}) == len(LINES)
    assert len(ANSWERS) == len(FACTS)


def test_a_twin_is_another_fact_of_the_relation_in_the_same_words_and_the_foil_its_answer() -> None:
    for line in LINES:
        before, _, after = line["prompt"].rpartition(line["subject"])
        assert f"{before}{{}}{after}" in WORDINGS[line["relation"]]
        twin = line["counterfactual"]
        assert twin.startswith(before)
        assert twin.endswith(after)
        other = twin[len(before) : len(twin) - len(after)]
        assert other != line["subject"]
        assert ANSWERS[line["relation"], line["subject"]] == line["answer"]
        assert ANSWERS[line["relation"], other] == line["foil"] != line["answer"]
        assert LENGTHS[line["relation"], other] == LENGTHS[line["relation"], line["subject"]]


def test_neither_answer_nor_foil_stands_in_the_prompt_and_no_foil_is_nearly_right() -> None:
    too_near = near()
    for line in LINES:
        there = {word.lower() for word in words(line["prompt"])}
        assert line["answer"].lower() not in there, line
        assert line["foil"] not in words(line["prompt"]), line
        assert line["answer"] not in words(line["counterfactual"]), line
        assert (line["relation"], frozenset((line["answer"], line["foil"]))) not in too_near, line


def test_foils_are_of_many_kinds() -> None:
    for relation in WORDINGS:
        foils = Counter(line["foil"] for line in LINES if line["relation"] == relation)
        answers = Counter(line["answer"] for line in LINES if line["relation"] == relation)
        assert len(foils) >= 0.6 * len(answers), relation


@pytest.mark.slow
def test_prompts_differ_in_tokens_and_answers_from_foils_on_the_built_in_model(model: LanguageModel) -> None:
    prompts = load_prompts("common-facts").prompts
    tokens = tokenize(model, prompts)
    assert len(set(map(tuple, tokens))) == len(prompts) == len(LINES)
    assert len(counterfactual_tokens(model, prompts)) == len(LINES)
    assert len(answer_tokens(model, prompts)) == len(foil_tokens(model, prompts)) == len(LINES)


def test_every_subject_is_where_the_wording_has_it(model: LanguageModel) -> None:
    for number, (line, prompt) in enumerate(zip(LINES, load_prompts("common-facts").prompts, strict=True), start=1):
        start, end = subject_span(model, number, prompt)
        ids = model.encode(line["prompt"])
        after = line["prompt"].rpartition(line["subject"])[2]
        assert model.tokenizer.decode(ids[end:]) == after
        assert model.tokenizer.decode(ids[start:end]).strip() == line["subject"]


def test_facts_agree_with_the_open_data_of_world_facts() -> None:
    known = {(line["relation"], line["subject"]): line["answer"] for line in read(assets.prompt_path("world-facts"))}
    both = {key for key in ANSWERS if key in known}
    assert len(both) > 500
    spelt = {"England": "United Kingdom", "Scotland": "United Kingdom", "aluminum": "aluminium"}
    unlike = {key for key in both if known[key] not in (ANSWERS[key], spelt.get(ANSWERS[key]))}
    # CLDR counts Wolof among Senegal's official languages, its constitution French alone.
    assert unlike == {("language", "Senegal")}


@pytest.mark.parametrize(
    ("relation", "inverse"),
    [
        ("capital", "capital of"),
        ("US capital", "US capital of"),
        ("US abbreviation", "US abbreviation of"),
        ("symbol", "element"),
    ],
)
def test_inverse_relations_agree(relation: str, inverse: str) -> None:
    there, back = facts(relation), facts(inverse)
    assert len(set(there.values())) == len(there)
    assert len(set(back.values())) == len(back)
    shared = [subject for subject in there if there[subject] in back]
    assert len(shared) >= 15
    assert all(back[there[subject]] == subject for subject in shared)


def test_capitals_of_states_lie_in_them() -> None:
    places, capitals = facts("US city in"), facts("US capital of")
    shared = set(places) & set(capitals)
    assert len(shared) >= 10
    assert all(places[city] == capitals[city] for city in shared)


def test_lists_go_on_as_they_began() -> None:
    for subject, answer in (facts("letters") | facts("numbers")).items():
        given = [*subject.split(", "), answer]
        scale = next(scale for scale in SCALES if set(given) <= set(scale))
        assert len({scale.index(after) - scale.index(before) for before, after in pairwise(given)}) == 1, subject
    for subject, answer in facts("calendar").items():
        given = [*subject.split(", "), answer]
        cycle = next(cycle for cycle in CYCLES if set(given) <= set(cycle))
        assert all((cycle.index(before) + 1) % len(cycle) == cycle.index(after) for before, after in pairwise(given))


def test_words_are_formed_by_rule_or_are_known_exceptions() -> None:
    for subject, answer in facts("comparative").items():
        assert answer.endswith("er") or (subject, answer) == ("bad", "worse")
    for subject, answer in facts("superlative").items():
        assert answer.endswith("est") or (subject, answer) == ("bad", "worst")
    comparatives, superlatives = facts("comparative"), facts("superlative")
    for subject in set(comparatives) & set(superlatives):
        assert re.sub("er$", "est", comparatives[subject]) == superlatives[subject] or subject in ("good", "bad")
    for subject, answer in facts("agent").items():
        assert answer.endswith(("er", "or"))
        assert answer[:2] == subject[:2]
    # A wording says "a" before them.
    for relation in ("agent", "kind", "profession"):
        assert not [answer for answer in facts(relation).values() if answer[0] in "aeiou"]


def test_a_fact_without_a_twin_is_refused() -> None:
    alone = Fact("plural", "all", "mouse", "mice", (1, 1))
    other = Fact("plural", "all", "phenomenon", "phenomena", (2, 1))
    with pytest.raises(ValueError, match="mouse has no twin"):
        lines([alone, other], built_in_first_token())


def test_twins_come_from_the_same_group_where_they_can(monkeypatch: pytest.MonkeyPatch) -> None:
    first = built_in_first_token()
    monkeypatch.setattr(common_facts, "near", lambda: {("plural", frozenset(("geese", "teeth")))})
    animals = [Fact("plural", "animal", *pair, (1, 1)) for pair in (("mouse", "mice"), ("goose", "geese"))]
    tooth = Fact("plural", "body", "tooth", "teeth", (1, 1))
    made = {line["subject"]: line["foil"] for line in lines([*animals, tooth], first)}
    assert made == {"mouse": "geese", "goose": "mice", "tooth": "mice"}
