"""What a set of prompts may be made of, when two sets are the same, and which tokens a prompt comes to."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from speaking import byte_level, speaking

from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.answers import answer_tokens, foil_tokens, whole_answers
from hydrascope.prompts.prompt import Prompt, PromptSet, prompt_label
from hydrascope.prompts.token_ids import texts, tokenize
from hydrascope.prompts.twins import counterfactual_tokens, require_same_length
from hydrascope.utils.errors import HydrascopeError


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    """One that knows a few words, of which it takes six."""
    return speaking(byte_level(["The tower is in Paris France"] * 20), context=6)


PROMPTS = st.lists(
    st.text(min_size=1).filter(str.strip) | st.lists(st.integers(0, 3), min_size=1, max_size=3), min_size=1
)


@given(PROMPTS, st.integers(1, 20))
def test_each_prompt_once_in_the_order_of_the_source(items: list[str | list[int]], count: int) -> None:
    made = PromptSet.of(items)
    kept = [prompt.text or list(prompt.tokens or ()) for prompt in made.prompts]
    assert kept == [item for i, item in enumerate(items) if item not in items[:i]]
    assert made.duplicates == len(items) - len(kept)
    assert made.limit(count).prompts == made.prompts[:count]
    assert made.fit_to(model=None) == (made, "")  # type: ignore[arg-type]


def test_the_first_of_two_equal_prompts_is_kept() -> None:
    made = PromptSet.of([Prompt("a", "first"), Prompt("b"), Prompt("a", "second"), [1, 2], Prompt(tokens=(1, 2))])
    assert made.prompts == (Prompt("a", "first"), Prompt("b"), Prompt(tokens=(1, 2)))
    assert made.duplicates == 2


def test_a_set_is_made_of_one_prompt_or_of_any_kinds_of_prompts() -> None:
    assert PromptSet.of("The tower is in").prompts == (Prompt("The tower is in"),)
    assert PromptSet.of(Prompt("Iron is", "Fe")).prompts == (Prompt("Iron is", "Fe"),)
    made = PromptSet.of(["a", [3, 4], Prompt(tokens=(5,)), (6, 7), np.array([8, 9]), torch.tensor([10])])
    assert [prompt.tokens for prompt in made.prompts] == [None, (3, 4), (5,), (6, 7), (8, 9), (10,)]
    assert all(type(token) is int for prompt in made.prompts for token in prompt.tokens or ())
    assert PromptSet.of(made) is made
    assert PromptSet.of(text for text in ("a", "b")).prompts == (Prompt("a"), Prompt("b"))
    lists = Prompt("a", np.int64(3), foil=torch.tensor(4), counterfactual=[1, 2])  # type: ignore[arg-type]
    assert PromptSet.of([lists]).prompts == (Prompt("a", 3, foil=4, counterfactual=(1, 2)),)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "holds no prompts"),
        ("", "prompt 1 is blank"),
        (["a", "\t"], "prompt 2 is blank"),
        ([[1], []], "prompt 2 is blank"),
        ([Prompt()], "prompt 1 is blank"),
        ([1, 2, 3], "prompt 1 is no prompt"),
        (["a", [1.5]], "prompt 2 is no prompt"),
        (["a", ["b"]], "prompt 2 is no prompt"),
        ([Prompt("a", tokens=(1,))], "prompt 1 has both"),
        (3, "cannot be a int"),
    ],
)
def test_what_is_no_prompt_is_refused(prompts: object, message: str) -> None:
    with pytest.raises(HydrascopeError, match=message) as caught:
        PromptSet.of(prompts)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_limits_below_one_are_refused() -> None:
    with pytest.raises(HydrascopeError, match="at least 1"):
        PromptSet.of(["a"]).limit(0)


def test_a_set_is_indexed_like_a_sequence() -> None:
    made = PromptSet.of(["a", "b", "c", "d"])
    assert made[-1] == Prompt("d")
    assert list(made[1::2]) == [Prompt("b"), Prompt("d")]
    assert made[1:].limit(1) == made[1:2]
    with pytest.raises(IndexError):
        made[4]
    with pytest.raises(HydrascopeError, match="the slice takes none of the 4 prompts of prompts: take at least 1"):
        made[4:]


def test_a_slice_of_a_set_that_is_made_for_a_model_is_one_of_what_is_made() -> None:
    def fit(model: object, count: int) -> tuple[list[Prompt], str]:
        return [Prompt(f"made {number}") for number in range(count)], "a note"

    whole = PromptSet("set", tuple(map(Prompt, "abcdef")), fit=fit)
    sliced, note = whole[1::2].fit_to(None)  # type: ignore[arg-type]
    assert (list(sliced), note) == ([Prompt("made 1"), Prompt("made 3"), Prompt("made 5")], "a note")
    assert list(whole[1:][::2].fit_to(None)[0]) == list(sliced)  # type: ignore[arg-type]
    assert list(whole[1::2].limit(2).fit_to(None)[0]) == list(sliced)[:2]  # type: ignore[arg-type]


def test_the_hash_tells_prompt_sets_apart() -> None:
    base = PromptSet.of(["a", "b"])
    assert base.hash == PromptSet.of(["a", "b"], "other name").hash
    others = [
        *(["b", "a"], ["a"], ["ab"], ["a", "b", "c"], [[1], "b"], [[1, 2], "b"], [[12], "b"], [Prompt("a", "b")]),
        *([Prompt("a", "x"), "b"], [Prompt("a", foil="x"), "b"], [Prompt("a", subject="x"), "b"]),
        *([Prompt("a", counterfactual="x"), "b"], [Prompt("a", counterfactual=(1,)), "b"], [Prompt("a", 1), "b"]),
        [Prompt("a", "1"), "b"],
    ]
    hashes = {PromptSet.of(other).hash for other in others}  # type: ignore[arg-type]
    assert len(hashes | {base.hash}) == len(others) + 1


def test_a_set_that_is_fitted_has_as_many_prompts_as_it_was_limited_to(model: LanguageModel) -> None:
    def fit(given: object, count: int) -> tuple[list[Prompt], str]:
        assert given is model
        return [Prompt(letter) for letter in "vwxyz"[:count]], "said"

    some = PromptSet("letters", (Prompt("a"), Prompt("b"), Prompt("c")), fit=fit)
    fitted, said = some.limit(2).fit_to(model)
    assert (fitted, said) == (PromptSet("letters", (Prompt("v"), Prompt("w"))), "said")
    assert fitted.fit_to(model) == (fitted, "")


def test_prompts_are_tokenized_by_the_model_or_taken_as_token_ids(model: LanguageModel) -> None:
    fits = Prompt("The tower is in Paris France")
    own = model.encode(fits.text)
    assert len(own) == 6
    assert tokenize(model, [fits, Prompt(tokens=(5, 0, 5))]) == [own, [5, 0, 5]]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt("The tower is in Paris France in"), r"prompt 2 \(.*\) is 7 tokens long, the context of toy holds 6"),
        (Prompt(tokens=(1,) * 7), r"prompt 2 \(token ids 1 1.*is 7 tokens long"),
        (Prompt(""), "prompt 2 .* has no tokens"),
        (Prompt(tokens=(0, 600)), r"prompt 2 \(token ids 0 600\) has token 600, toy knows 0 to"),
        (Prompt(tokens=(-1, 0)), "has token -1"),
    ],
)
def test_prompts_that_the_model_cannot_take_are_refused(model: LanguageModel, prompt: Prompt, message: str) -> None:
    with pytest.raises(HydrascopeError, match=message):
        tokenize(model, [Prompt("The tower is in Paris France"), prompt])


def test_the_answer_is_read_as_it_continues_the_prompt(model: LanguageModel) -> None:
    asked = [
        Prompt("The tower is in", "Paris"),  # a space between
        Prompt("The tower is in", " Paris"),  # it has its own
        Prompt("The tower is in\n", "Paris"),  # the prompt brings white space
        Prompt("The tower is", "in Paris"),  # of several words the first
        Prompt("The tower is", 7),  # a token's id is itself
        Prompt(tokens=(1, 2), answer=9),
    ]
    found = answer_tokens(model, asked)
    assert [model.decode(token) for token in found[:2]] == [" Paris", " Paris"]
    assert found[2] == model.encode("Paris")[0]
    assert model.decode(found[3]) == " in"
    assert found[4:] == [7, 9]


def test_a_whole_answer_is_all_that_continues_the_prompt(model: LanguageModel) -> None:
    asked = [
        Prompt("The tower is", "in Paris France"),
        Prompt("The tower is", " in Paris France"),
        Prompt("The tower is in", "Paris"),
        Prompt(tokens=(1, 2), answer=(9, 3, 9)),
        Prompt("The tower is", (9,)),
    ]
    found = whole_answers(model, asked)
    assert [model.decode(token) for token in found[0]] == [" in", " Paris", " France"]
    assert found[1:] == [found[0], [found[0][1]], [9, 3, 9], [9]]
    assert answer_tokens(model, asked) == [answer[0] for answer in found]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt("The tower is in"), r'prompt 2 \("The tower is in"\) has no answer: .* leave out the metric'),
        (Prompt("The tower is in", ()), "has no answer"),
        (Prompt("The tower is in", 3), "the answer of prompt 2 .* is the id of its first token: give its text, or"),
        (Prompt("The tower is in", (3, 601)), "the answer of prompt 2 .* has token 601"),
        (Prompt("The tower is in ", "Paris"), 'prompt 2 .* and its answer "Paris" share a token'),
        (Prompt(tokens=(1, 2), answer="Paris"), "prompt 2 .* is given as token ids: give the ids of all tokens"),
    ],
)
def test_whole_answers_that_cannot_be_read_are_refused(model: LanguageModel, prompt: Prompt, message: str) -> None:
    with pytest.raises(HydrascopeError, match=message):
        whole_answers(model, [Prompt("The tower is in", "Paris"), prompt])


@pytest.mark.parametrize("answer", [(4, 5), [4, 5], np.array([4, 5]), [np.int64(4), 5]])
def test_an_answer_may_be_several_ids(answer: Any) -> None:
    given = [Prompt("a", answer), {"tokens": [1, 2], "answer": answer}]
    assert [prompt.answer for prompt in PromptSet.of(given).prompts] == [(4, 5)] * 2
    assert PromptSet.of(given).hash != PromptSet.of([Prompt("a", (4,)), given[1]]).hash


@pytest.mark.parametrize("answer", [True, 1.5, [1.5], ["a"], {4, 5}, b"ab"])
def test_what_is_no_answer_is_refused(answer: Any) -> None:
    with pytest.raises(HydrascopeError, match="prompts: prompt 1 is no prompt"):
        PromptSet.of([Prompt("a", answer)])


def test_the_foil_is_read_by_the_same_rule(model: LanguageModel) -> None:
    asked = [
        Prompt("The tower is in", "Paris", foil="France"),
        Prompt("The tower is in\n", "Paris", foil="France"),
        Prompt("The tower is", "in Paris", foil="tower"),
        Prompt("The tower is in", "Paris", foil=3),
        Prompt(tokens=(1, 2), answer=9, foil=4),
    ]
    found = foil_tokens(model, asked)
    assert found == answer_tokens(model, [Prompt(p.text, p.foil, tokens=p.tokens) for p in asked])
    assert model.decode(found[0]) == " France"
    assert found[3:] == [3, 4]


TOWER = "The tower is in"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt(TOWER), r'prompt 2 \("The tower is in"\) has no answer'),
        (Prompt(TOWER, " "), "has no answer"),
        (Prompt(TOWER + " ", "Paris", foil="France"), 'prompt 2 .* and its answer "Paris" share a token'),
        (Prompt(TOWER, 601), "the answer of prompt 2 .* has token 601"),
        (Prompt(tokens=(1, 2), answer="Paris"), r"prompt 2 \(token ids 1 2\) is given as token ids: give the first"),
    ],
)
def test_answers_that_cannot_be_read_are_refused(model: LanguageModel, prompt: Prompt, message: str) -> None:
    good = Prompt(TOWER, "Paris", foil="France")
    for read in (answer_tokens, foil_tokens):
        with pytest.raises(HydrascopeError, match=message):
            read(model, [good, prompt])


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt(TOWER, "Paris"), r'prompt 2 \("The tower is in"\) has no foil'),
        (Prompt(TOWER, "Paris", foil="Paris France"), "prompt 2 .* begin with the same token"),
        (Prompt(TOWER, "in Paris", foil="in France"), "begin with the same token"),
        (Prompt(tokens=(1, 2), answer=3, foil=3), "begin with the same token"),
        (Prompt(tokens=(1, 2), answer=3, foil="Paris"), "the first token of its foil"),
        (Prompt(TOWER, 3, foil=-2), "the foil of prompt 2 .* has token -2"),
    ],
)
def test_foils_that_tell_nothing_apart_are_refused(model: LanguageModel, prompt: Prompt, message: str) -> None:
    with pytest.raises(HydrascopeError, match=message):
        foil_tokens(model, [Prompt(TOWER, "Paris", foil="France"), prompt])


def test_twins_are_tokenized_as_prompts_are(model: LanguageModel) -> None:
    prompts = [
        Prompt(TOWER, counterfactual="The tower is Paris"),
        Prompt(tokens=(1, 2), counterfactual=(1, 3, 4)),
        Prompt(TOWER, counterfactual=(1, 2)),
        Prompt(tokens=(1, 2), counterfactual=TOWER),
    ]
    twins = counterfactual_tokens(model, prompts)
    assert twins == [model.encode("The tower is Paris"), [1, 3, 4], [1, 2], model.encode(TOWER)]
    require_same_length(prompts[:1], tokenize(model, prompts[:1]), twins[:1])
    with pytest.raises(HydrascopeError, match=r"prompt 2 \(token ids 1 2\) is 2 tokens long and its counterfactual 3"):
        require_same_length(prompts, tokenize(model, prompts), twins)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt("The sea"), r'prompt 2 \("The sea"\) has no counterfactual'),
        (Prompt("The sea", counterfactual=""), "prompt 2 .* has no counterfactual"),
        (Prompt("The sea", counterfactual="The sea"), "prompt 2 .* is its own counterfactual"),
        (Prompt(tokens=(1, 2), counterfactual=(1, 2)), r"prompt 2 .* is its own counterfactual"),
        (Prompt("The sea", counterfactual=(1,) * 7), "the counterfactual of prompt 2 .* is 7 tokens long"),
        (Prompt("The sea", counterfactual=(1, 600)), "the counterfactual of prompt 2 .* has token 600"),
    ],
)
def test_twins_that_are_none_are_refused(model: LanguageModel, prompt: Prompt, message: str) -> None:
    with pytest.raises(HydrascopeError, match=message):
        counterfactual_tokens(model, [Prompt(TOWER, counterfactual="The tower is Paris"), prompt])


def test_what_is_shown_of_a_prompt(model: LanguageModel) -> None:
    prompts = [Prompt(TOWER), Prompt(tokens=tuple(model.encode("The tower")))]
    assert texts(model, prompts) == [TOWER, "The tower"]
    assert texts(speaking(None, vocabulary=9), [Prompt(tokens=(1, 2))]) == ["1 2"]
    assert prompt_label(7, Prompt("a\nb" * 20)).startswith(r'prompt 7 ("a\nba')
    assert prompt_label(7, Prompt(tokens=tuple(range(9)))) == "prompt 7 (token ids 0 1 2 3 4 5 6 7 …)"


def test_a_set_is_iterated_over() -> None:
    prompts = PromptSet.of(["one", Prompt("two", "2"), "one"])
    assert [prompt.text for prompt in prompts] == ["one", "two"]
    assert len(prompts) == 2
    assert PromptSet.of(list(prompts)).hash == prompts.hash
