"""Where a prompt's subject stands among its tokens."""

import re
from typing import Protocol

from hydrascope.prompts.prompt import Prompt, prompt_label, quote
from hydrascope.utils.errors import HydrascopeError


class Locates(Protocol):
    """What finding a subject needs of a language model."""

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]: ...


def subject_span(model: Locates, number: int, prompt: Prompt) -> tuple[int, int]:
    """The tokens of the prompt's subject: the index of the first, and of the first that is no longer one.

        subject_span(model, 1, Prompt("The capital of France is", subject="France"))  # (4, 5)

    The subject is found as it is written, upper and lower case told apart; where it occurs more than once, the *last*
    occurrence counts, and one within a longer word (`Niger` in `Nigeria`) only where there is no other. The last one,
    because a model reads from left to right: there it has met the subject in every mention, and what follows reads it
    from there (in indirect-object identification it is the repeated name that decides). Its tokens are all that hold a
    character of it, be it with a space before or with other characters around.

    Args:
        model: whose tokenizer says which characters a token stands for.
        number: of the prompt in its set, from 1, for messages.
        prompt: has a text and a subject.

    Raises:
        HydrascopeError: the prompt is given as token ids, has no subject, doesn't contain it, or no token holds a
            character of it; or the tokenizer can't say where its tokens stand.
    """
    where = prompt_label(number, prompt)
    if prompt.tokens is not None:
        raise HydrascopeError(f"{where} is given as token ids, where no subject is found: give its text, or positions")
    if prompt.subject is None or not prompt.subject.strip():
        raise HydrascopeError(f"{where} has no subject: give every prompt one, or other positions")
    start = _last_occurrence(prompt.subject, prompt.text)
    if start is None:
        raise HydrascopeError(
            f"{where} does not contain its subject {quote(prompt.subject)}: write it as in the prompt"
        )
    end = start + len(prompt.subject)
    _, spans = model.encode_with_offsets(prompt.text)
    held = [token for token, (first, last) in enumerate(spans) if max(first, start) < min(last, end)]
    if not held:
        raise HydrascopeError(f"{where}: its subject {quote(prompt.subject)} has no tokens: give another subject")
    return held[0], held[-1] + 1


def found_subject(model: Locates, prompt: Prompt) -> tuple[int, int] | None:
    """As `subject_span`, where there may be no subject, or none that can be found."""
    if prompt.subject is None:
        return None
    try:
        return subject_span(model, 1, prompt)
    except HydrascopeError:  # where it is needed, it is refused
        return None


def _last_occurrence(subject: str, text: str) -> int | None:
    """Where the subject begins for the last time: as words of their own, or else within a longer word."""
    # Looking ahead, since occurrences may overlap.
    whole = [match.start() for match in re.finditer(rf"(?<!\w)(?={re.escape(subject)}(?!\w))", text)]
    anywhere = text.rfind(subject)
    return whole[-1] if whole else None if anywhere < 0 else anywhere
