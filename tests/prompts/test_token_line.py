"""The line that shows the first prompt's tokens at the start of a run."""

from hypothesis import given, settings
from hypothesis import strategies as st
from plain import loaded
from speaking import byte_level, speaking
from tokenizers import processors

from hydrascope.prompts.token_line import tokens_line

MODEL = speaking(byte_level(["The capital of France is", " capital of"], 400))


def test_a_short_prompt_is_shown_whole() -> None:
    model = loaded()
    model.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    assert tokens_line(model, model.encode("a cat")) == "<s>|a| |c|a|t"
    model.tokenizer = None
    assert tokens_line(model, [1, 306, 9]) == "1|306|9"


def test_a_long_prompt_is_shown_by_its_ends() -> None:
    line = tokens_line(MODEL, MODEL.encode("The capital of" + 60 * " capital of" + " France is"))
    assert line.startswith("The| capital| of| capital| of|")
    assert "|…|" in line
    assert line.endswith(" of| France| is")
    assert len(line) <= 88
    whole = tokens_line(MODEL, MODEL.encode("The capital of France is"))
    assert whole == "The| capital| of| France| is"


def test_what_steers_a_terminal_is_escaped() -> None:
    assert tokens_line(MODEL, MODEL.encode("a\nb\t\x1b[2J")) == r"a|\n|b|\t|\x1b|[|2|J"


@given(st.text(max_size=300))
@settings(max_examples=60, deadline=None)
def test_any_prompt_is_one_short_line(text: str) -> None:
    line = tokens_line(MODEL, MODEL.encode(text) or [5])
    assert line.isprintable()
    assert len(line) <= 100
