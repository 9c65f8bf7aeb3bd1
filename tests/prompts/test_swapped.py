"""Test the exchange of a prompt and its counterfactual, and the subject of the exchanged prompt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from knowing import knowing

from hydrascope.prompts.load import load_prompts
from hydrascope.prompts.prompt import Prompt, PromptSet
from hydrascope.prompts.subjects import subject_span
from hydrascope.prompts.twins import swap
from hydrascope.utils.errors import HydrascopeError


def test_text_and_counterfactual_are_exchanged_and_answer_and_foil() -> None:
    prompt = Prompt(
        "The capital of France is", "Paris", foil="Madrid", subject="France", counterfactual="The capital of Spain is"
    )
    assert swap(prompt) == Prompt(
        "The capital of Spain is", "Madrid", foil="Paris", subject="Spain", counterfactual="The capital of France is"
    )
    assert swap(swap(prompt)) == prompt


def test_token_ids_are_exchanged_too() -> None:
    assert swap(Prompt(tokens=(1, 2), answer=(5, 6), foil=7, counterfactual=(3, 4))) == Prompt(
        tokens=(3, 4), answer=7, foil=5, counterfactual=(1, 2)
    )
    assert swap(Prompt("a b", "x", counterfactual=(3, 4))) == Prompt(tokens=(3, 4), foil="x", counterfactual="a b")


words = st.sampled_from(["Ann", "Bob", "Cy", "the", "cat"])


@given(st.lists(st.tuples(words, words), min_size=1, max_size=6), st.integers(0, 5))
def test_the_subject_is_the_word_in_its_place(pairs: list[tuple[str, str]], at: int) -> None:
    text, twin = (" ".join(pair[side] for pair in pairs) for side in (0, 1))
    at %= len(pairs)
    subject = pairs[at][0]
    last = max(i for i, pair in enumerate(pairs) if pair[0] == subject)
    found = swap(Prompt(text, subject=subject, counterfactual=twin)).subject
    assert found == pairs[last][1]


@pytest.mark.parametrize(
    ("text", "subject", "twin", "found"),
    [
        ("Niger borders", "Niger", "Burkina Faso borders", "Burkina Faso"),
        ("In Steve Jobs’s garage, Steve Jobs built", "Steve Jobs", "In Tim Cook’s garage, Tim Cook built", "Tim Cook"),
        ("Rome is in", "Rome", "Oslo is a town in", None),
        ("Rome is in", "Rom", "Oslo is in", None),
        ("Rome is in", "Milan", "Oslo is in", None),
    ],
)
def test_what_becomes_the_subject(text: str, subject: str, twin: str, found: str | None) -> None:
    assert swap(Prompt(text, subject=subject, counterfactual=twin)).subject == found


@pytest.mark.parametrize("name", ["ioi", "world-facts", "greater-than", "gender"])
def test_a_set_is_swapped_before_or_after_it_is_made_for_a_tokenizer(name: str) -> None:
    model = knowing()
    prompts = load_prompts(name).limit(24)
    swapped, note = prompts.swapped().fit_to(model)
    made, same = prompts.fit_to(model)
    assert note == same
    assert swapped.prompts == made.swapped().prompts == tuple(map(swap, made.prompts))
    assert (made.corrupt, made.patching) == (False, "noising")
    assert (swapped.corrupt, swapped.patching) == (True, "denoising")
    assert prompts.swapped().swapped().fit_to(model)[0].prompts == made.prompts
    for number, (own, other) in enumerate(zip(made.prompts, swapped.prompts, strict=True), start=1):
        if name == "ioi":
            assert subject_span(model, number, own) == subject_span(model, number, other)


def test_a_prompt_without_a_counterfactual_cannot_be_swapped() -> None:
    with pytest.raises(HydrascopeError, match=r'prompt 2 \("b"\) has no counterfactual to exchange it with'):
        PromptSet.of([Prompt("a", counterfactual="c"), "b"]).swapped()
