"""Read a question as a page sends it, and refuse one that asks nothing."""

import pytest
import torch

from hydrascope.components.component import Component
from hydrascope.explorer.question import Question
from hydrascope.utils.errors import HydrascopeError


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([], "no question"),
        ({"text": 3}, "no question"),
        ({"text": "a", "seed": "0"}, "seed can't be '0'"),
        ({"text": "a", "patches": True}, "patches can't be True"),
        ({"text": "a", "subject": 3}, "subject can't be 3"),
        ({"text": "a", "subject": "\udc00"}, "the subject holds half a surrogate pair"),
        ({"text": "a", "subject": "a" * 20_001}, "this question is too long"),
        ({"text": "a", "model": "x"}, "model can't be 'x'"),
        ({"text": "  \n"}, "the prompt is empty: write one"),
        ({"text": "a" * 20_001}, "20,001 characters long, and 20,000 are read: shorten it"),
        ({"text": "a\ud800"}, "half a surrogate pair"),
        ({"text": "a", "patches": 10_000}, "10000 patches: ask for 1 to 200"),
        ({"text": "a", "ablation": "remove"}, "'remove' replaces nothing"),
        ({"text": "a", "at": "first"}, "are no positions"),
        ({"text": "a", "at": "1"}, "are no positions"),
        ({"text": "a", "heads": ["1"]}, "heads must be numbers"),
        ({"text": "a", "run": "attn.0+" * 300}, "more than 256 components"),
    ],
)
def test_a_question_is_looked_over(asked, said):
    with pytest.raises(HydrascopeError, match=said):
        Question.of(asked)


def test_a_question_is_read_as_it_is_meant():
    assert Question.of({"text": "a", "target": None, "heads": [1], "noise_scale": 2}) == Question(
        "a", heads=(1,), noise_scale=2
    )
    assert torch.is_grad_enabled()
    assert Component.parse("attn.0") is not None
