"""The prompts for induction: a list of words begins again, and its next word is asked for."""

from collections import Counter
from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st
from knowing import built_in
from tiny import shared

from hydrascope.prompts import induction


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_the_list_begins_again(seed: int) -> None:
    for prompt in islice(induction.prompts(seed=seed), 20):
        lead, *words = prompt.text.split()
        length = int(str(prompt.template).split()[0])
        once, again = words[:length], words[length:]
        assert lead == "Words:"
        assert len({*once}) == length
        assert again == once[: len(again)]
        assert length // 4 <= len(again) <= length - 2
        assert prompt.answer == prompt.subject == once[len(again)]
        assert prompt.foil in once[len(again) + 1 :]
        twin = [
            {prompt.answer: prompt.foil, prompt.foil: prompt.answer}.get(word, word) for word in prompt.text.split()
        ]
        assert prompt.counterfactual == " ".join(map(str, twin))


def test_first_prompts_are_balanced_over_lengths() -> None:
    seen = Counter(prompt.template for prompt in islice(induction.prompts(), 40))
    assert seen == {f"{length} words": 10 for length in induction.LENGTHS}


def test_words_are_drawn_from_the_tokenizer() -> None:
    words = induction.vocabulary(built_in())
    assert len(words) == len({*words}) <= 1000
    assert len(words) > 300
    before = built_in().encode("the")
    assert all(len(built_in().encode(f"the {word}")) == len(before) + 1 for word in words)
    assert words == induction.vocabulary(built_in())
    assert words != induction.vocabulary(built_in(), seed=1)
    assert induction.vocabulary(shared("llama")) == []
