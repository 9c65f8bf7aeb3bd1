"""The prompts for gender: the pronoun goes with the name, and the twin's with the other."""

from collections import Counter
from itertools import islice

from hypothesis import given, settings
from hypothesis import strategies as st

from hydrascope.prompts import gender, ioi


@given(st.integers(0, 10**6), st.integers(1, 20))
@settings(max_examples=20, deadline=None)
def test_the_pronoun_goes_with_the_name(seed: int, count: int) -> None:
    women, men = gender.WOMEN[:count], gender.MEN[:count]
    for prompt in islice(gender.prompts(women, men, seed), 30):
        assert (prompt.answer, prompt.foil) == (("she", "he") if prompt.subject in women else ("he", "she"))
        assert prompt.text == str(prompt.template).format(name=prompt.subject)
        others = men if prompt.subject in women else women
        assert prompt.counterfactual in {str(prompt.template).format(name=name) for name in others}


def test_first_prompts_are_balanced_over_sentences_and_pronouns() -> None:
    seen = Counter((prompt.template, prompt.answer) for prompt in islice(gender.prompts(), 48))
    assert len(seen) == 2 * len(gender.TEMPLATES) == 24
    assert set(seen.values()) == {2}


def test_names_are_those_of_ioi_and_no_sentence_begins_with_one() -> None:
    assert not {*gender.WOMEN} & {*gender.MEN}
    assert {*gender.WOMEN, *gender.MEN} < {*ioi.NAMES}
    assert not any(template.startswith("{") for template in gender.TEMPLATES)
