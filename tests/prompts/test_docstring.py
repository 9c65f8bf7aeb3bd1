"""The prompts for docstrings: which argument is asked for, and what the twin exchanges."""

import ast
import re
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hydrascope.prompts import docstring


def arguments(text: str) -> list[str]:
    """The arguments of a function whose docstring isn't finished."""
    (function,) = ast.parse(text + '"""').body
    assert isinstance(function, ast.FunctionDef)
    return [argument.arg for argument in function.args.args if argument.arg != "self"]


@given(st.integers(0, 10**6), st.integers(10, len(docstring.WORDS)))
@settings(max_examples=20, deadline=None)
def test_the_next_argument_is_asked_for(seed: int, count: int) -> None:
    for prompt in islice(docstring.prompts(docstring.WORDS[:count], seed), 12):
        signature = arguments(prompt.text)
        documented = re.findall(r"[:@](?:param|arg) (\w+)", prompt.text)
        assert signature == [*documented, prompt.answer, prompt.foil]
        assert len(documented) == 2
        twin = str(prompt.counterfactual)
        assert arguments(twin) == [*documented, prompt.foil, prompt.answer]
        assert twin.split("\n")[1:] == prompt.text.split("\n")[1:]
        assert prompt.subject == prompt.answer
        assert len(re.findall(rf"\b{prompt.answer}\b", prompt.text)) == 1
        assert prompt.text.endswith(("param", "arg"))


def test_first_prompts_are_balanced_over_styles() -> None:
    seen = Counter(prompt.template for prompt in islice(docstring.prompts(), 40))
    assert seen == dict.fromkeys(docstring.TEMPLATES, 10)


def test_words_are_distinct() -> None:
    assert len(docstring.WORDS) == len({*docstring.WORDS})
    with pytest.raises(ValueError, match="larger than population"):
        next(docstring.prompts(docstring.WORDS[:9]))
