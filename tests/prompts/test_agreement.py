"""The prompts for agreement: the verb agrees with the subject, and the noun next to it has the other number."""

from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from knowing import built_in

from hydrascope.prompts import agreement
from hydrascope.prompts.load import load_prompts
from hydrascope.utils.errors import HydrascopeError

NUMBER = {word: number for pair in (*agreement.SUBJECTS, *agreement.ATTRACTORS) for number, word in enumerate(pair)}


@given(st.integers(0, 10**6), st.integers(4, len(agreement.SUBJECTS)))
@settings(max_examples=20, deadline=None)
def test_subject_and_attractor_differ_in_number(seed: int, count: int) -> None:
    subjects = agreement.SUBJECTS[:count]
    for prompt in islice(agreement.prompts(subjects, seed=seed), 30):
        attractor = prompt.text.split()[-1]
        assert NUMBER[attractor] == 1 - NUMBER[str(prompt.subject)]
        assert (prompt.answer, prompt.foil) == (("is", "are"), ("are", "is"))[NUMBER[str(prompt.subject)]]
        pair = next(pair for pair in subjects if prompt.subject in pair)
        other = pair[1 - NUMBER[str(prompt.subject)]]
        assert prompt.text == str(prompt.template).format(noun=prompt.subject, other=attractor)
        assert prompt.counterfactual == str(prompt.template).format(noun=other, other=attractor)


def test_first_prompts_are_balanced_over_sentences_and_numbers() -> None:
    seen = Counter((prompt.template, prompt.answer) for prompt in islice(agreement.prompts(), 48))
    assert len(seen) == 2 * len(agreement.TEMPLATES) == 24
    assert set(seen.values()) == {2}


def test_no_word_is_in_two_numbers() -> None:
    words = [word for pair in (*agreement.SUBJECTS, *agreement.ATTRACTORS) for word in pair]
    assert len(words) == len({*words})


def test_a_model_with_few_nouns_is_refused() -> None:
    with pytest.raises(HydrascopeError, match="agreement needs 4 subjects of one token in both numbers, toy has 2"):
        load_prompts("agreement").fit_to(built_in())
