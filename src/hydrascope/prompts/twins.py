"""Each prompt's twin, its counterfactual: its tokens, and the exchange of the two."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate

from hydrascope.prompts.prompt import Prompt, Tokenizes, prompt_label
from hydrascope.prompts.subjects import last_occurrence
from hydrascope.prompts.token_ids import fitting_tokens, ids_of
from hydrascope.utils.errors import HydrascopeError

#: A function from a model and a number of prompts to the prompts made for it, and a note (`PromptSet.fit`).
Fit = Callable[[Tokenizes, int], tuple[Sequence[Prompt], str]]


def counterfactual_tokens(model: Tokenizes, prompts: Sequence[Prompt]) -> list[list[int]]:
    """Return the token ids of each prompt's twin, by the rules of `tokenize`.

        >>> counterfactual_tokens(model, [Prompt("the fox is", counterfactual="the frog is")])
        [[2, 20, 4]]

    Raises:
        HydrascopeError: a prompt has no twin, or a twin with the same tokens; or a twin breaks a rule of `tokenize`.
    """
    twins = []
    for number, prompt in enumerate(prompts, start=1):
        where = prompt_label(number, prompt)
        if not prompt.counterfactual:
            raise HydrascopeError(f"{where} has no counterfactual: give every prompt one, or choose another ablation")
        twin = fitting_tokens(model, prompt.counterfactual, f"the counterfactual of {where}")
        if twin == ids_of(model, prompt.tokens or prompt.text):
            raise HydrascopeError(f"{where} is its own counterfactual: give it another text")
        twins.append(twin)
    return twins


def require_same_length(
    prompts: Sequence[Prompt], tokens: Sequence[Sequence[int]], twins: Sequence[Sequence[int]]
) -> None:
    """Make sure that each prompt has as many tokens as its twin.

    Ablations before the last position need it.

    Raises:
        HydrascopeError: a prompt and its twin differ in length; the message gives both lengths.
    """
    for number, (prompt, own, twin) in enumerate(zip(prompts, tokens, twins, strict=True), start=1):
        if len(own) != len(twin):
            raise HydrascopeError(
                f"{prompt_label(number, prompt)} is {len(own):,} tokens long and its counterfactual {len(twin):,}: at "
                "positions other than the last both must have the same length; change one of them"
            )


def swap_all(prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """Return all prompts with each exchanged with its counterfactual (`swap`).

    Raises:
        HydrascopeError: a prompt has no counterfactual.
    """
    for number, prompt in enumerate(prompts, start=1):
        if not prompt.counterfactual:
            raise HydrascopeError(
                f"{prompt_label(number, prompt)} has no counterfactual to exchange it with: give every prompt one"
            )
    return tuple(map(swap, prompts))


def swapping_fit(fit: Fit) -> Fit:
    """Return a function that makes the same prompts, exchanged with their counterfactuals."""

    def fit_and_swap(model: Tokenizes, count: int) -> tuple[Sequence[Prompt], str]:
        prompts, note = fit(model, count)
        return swap_all(prompts), note

    return fit_and_swap


def swap(prompt: Prompt) -> Prompt:
    """Return a prompt exchanged with its counterfactual, and its answer with its foil.

    A foil is one token or a text: of an answer given as several ids the first is kept. The subject becomes the words
    that stand in its place in the counterfactual; there is none if the two texts differ in more than words put for
    words, or are token ids.

        >>> swap(Prompt("the fox is", "red", foil="green", subject="fox", counterfactual="the frog is"))
        Prompt(text='the frog is', answer='green', foil='red', subject='frog', counterfactual='the fox is', ...)
    """
    twin, own = prompt.counterfactual, prompt.text if prompt.tokens is None else prompt.tokens
    return replace(
        prompt,
        text=twin if isinstance(twin, str) else "",
        tokens=None if isinstance(twin, str) else twin,
        counterfactual=own,
        answer=prompt.foil,
        foil=prompt.answer[0] if isinstance(prompt.answer, tuple) else prompt.answer,
        subject=_subject_of_twin(prompt),
    )


def _subject_of_twin(prompt: Prompt) -> str | None:
    """Return the words of the counterfactual in the subject's place; None if unclear."""
    if not prompt.subject or not prompt.text or not isinstance(prompt.counterfactual, str):
        return None
    start = last_occurrence(prompt.subject, prompt.text)
    if start is None:
        return None
    end, twin = start + len(prompt.subject), prompt.counterfactual
    before, after = prompt.text[:start], prompt.text[end:]
    if len(twin) > len(before) + len(after) and twin.startswith(before) and twin.endswith(after):
        return twin[len(before) : len(twin) - len(after)]
    return _word_for_word(prompt.text, start, end, twin)


def _word_for_word(text: str, start: int, end: int, twin: str) -> str | None:
    """Return the words of `twin` in the places of words of `text`, if they match word for word."""
    own, other = (re.findall(r"\w+|\W+", each) for each in (text, twin))
    ends = [0, *accumulate(map(len, own))]
    alike = len(own) == len(other) and all(
        one == two for one, two in zip(own, other, strict=True) if not one[0].isalnum()
    )
    if not alike or start not in ends or end not in ends:
        return None
    return "".join(other[ends.index(start) : ends.index(end)])
