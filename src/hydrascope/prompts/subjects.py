"""Find the tokens of a prompt's subject."""

import re
from typing import Protocol

from hydrascope.prompts.prompt import Prompt, prompt_label, quote
from hydrascope.utils.errors import HydrascopeError


class Locates(Protocol):
    """The method of a language model that finds the characters of tokens."""

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]: ...


def subject_span(model: Locates, number: int, prompt: Prompt) -> tuple[int, int]:
    """Return the first position of the prompt's subject, and the first position after it.

        >>> subject_span(model, 1, Prompt("the fox in the garden is", subject="fox"))
        (1, 2)

    The search is case-sensitive. If the subject occurs more than once, the *last* occurrence counts. An occurrence
    within a longer word (`Niger` in `Nigeria`) counts only if there is no other. The last one is chosen because a model
    reads from left to right: by then it has met all mentions (in indirect object identification the repeated name
    decides). The subject's tokens are all that share a character with it.

    Args:
        model: a model with a tokenizer that reports the characters of its tokens.
        number: the number of the prompt in its set, from 1, for messages.
        prompt: a prompt with a text and a subject.

    Raises:
        HydrascopeError: the prompt is given as token ids, has no subject or doesn't contain it; no token has a
            character of it; or the tokenizer doesn't report the characters of its tokens.
    """
    where = prompt_label(number, prompt)
    if prompt.tokens is not None:
        raise HydrascopeError(f"{where} is given as token ids, so its subject can't be found: give text, or positions")
    if prompt.subject is None or not prompt.subject.strip():
        raise HydrascopeError(f"{where} has no subject: give every prompt one, or other positions")
    start = last_occurrence(prompt.subject, prompt.text)
    if start is None:
        raise HydrascopeError(
            f"{where} does not contain its subject {quote(prompt.subject)}: write it as in the prompt"
        )
    end = start + len(prompt.subject)
    _, spans = model.encode_with_offsets(prompt.text)
    tokens = [token for token, (first, last) in enumerate(spans) if max(first, start) < min(last, end)]
    if not tokens:
        raise HydrascopeError(f"{where}: its subject {quote(prompt.subject)} has no tokens: give another subject")
    return tokens[0], tokens[-1] + 1


def found_subject(model: Locates, prompt: Prompt) -> tuple[int, int] | None:
    """Return the `subject_span` of a prompt, or None if it has no subject or it can't be found."""
    if prompt.subject is None:
        return None
    try:
        return subject_span(model, 1, prompt)
    except HydrascopeError:
        return None


def last_occurrence(subject: str, text: str) -> int | None:
    """Return the start of the last occurrence of a subject, preferably one of whole words.

    >>> last_occurrence("Niger", "Niger borders Nigeria")
    0
    """
    # A lookahead, since occurrences may overlap.
    whole = [match.start() for match in re.finditer(rf"(?<!\w)(?={re.escape(subject)}(?!\w))", text)]
    anywhere = text.rfind(subject)
    return whole[-1] if whole else None if anywhere < 0 else anywhere
