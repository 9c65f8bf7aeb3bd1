"""Resolve the positions of each prompt at which components are ablated.

Positions are `last` (the paper's), `all`, `subject` (all tokens of the prompt's subject), `subject-last`, a number (-1
is the last position, 0 the first), or a list of numbers. Positions of two prompts correspond if their distance from the
prompt's end is the same, or, for positions of the subject, their distance from the subject's end.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hydrascope.prompts.prompt import Prompt, prompt_label
from hydrascope.prompts.subjects import Locates, subject_span
from hydrascope.utils.errors import HydrascopeError

#: `last`, `all`, `subject`, `subject-last`, a position, or several; as text, numbers are joined by commas.
At = str | int | Sequence[int]

#: The names of positions. Those in `SUBJECT` need prompts with a subject.
SUBJECT = ("subject", "subject-last")
NAMES = ("last", "all", *SUBJECT)


@dataclass(frozen=True)
class AblationPositions:
    """The positions at which one prompt is ablated.

    Attributes:
        positions: ascending indices, counted from the prompt's start.
        end: the end of the prompt or of its subject, from which corresponding positions are counted back.
        start: the start of the prompt or of its subject; no earlier position corresponds to another prompt's.
    """

    positions: tuple[int, ...]
    end: int
    start: int = 0

    @property
    def offsets(self) -> tuple[int, ...]:
        """The distance of each position from `end`; 1 is the position right before it."""
        return tuple(self.end - position for position in self.positions)

    def has(self, offsets: Sequence[int]) -> bool:
        """Whether the prompt has a position at each of these distances from `end`."""
        return max(offsets) <= self.end - self.start


def resolve_positions(
    model: Locates, prompts: Sequence[Prompt], tokens: Sequence[Sequence[int]], at: At
) -> tuple[AblationPositions, ...]:
    """Return the ablated positions of each prompt.

        >>> resolve_positions(model, [Prompt("the fox is")], [[2, 7, 4]], "last")
        (AblationPositions(positions=(2,), end=3, start=0),)

    Args:
        tokens: the token ids of each prompt.
        at: the positions, as this module describes them.

    Raises:
        HydrascopeError: `at` is no position, a prompt is too short for it, or lacks a subject that it needs.
    """
    name = format_positions(at)
    if name in SUBJECT:
        return tuple(_subject(model, number, prompt, name) for number, prompt in enumerate(prompts, start=1))
    if name == "all":
        return tuple(AblationPositions(tuple(range(len(ids))), len(ids)) for ids in tokens)
    numbers = [-1] if name == "last" else [int(number) for number in name.split(",")]
    numbered = enumerate(zip(prompts, tokens, strict=True), start=1)
    return tuple(_numbered(prompt_label(number, prompt), len(ids), numbers) for number, (prompt, ids) in numbered)


def format_positions(at: At) -> str:
    """Return positions as text, as results record them.

        >>> format_positions([-1, 3])
        '-1,3'

    Raises:
        HydrascopeError: `at` is no position.
    """
    items = list(at) if isinstance(at, Iterable) and not isinstance(at, str) else [at]
    text = ",".join(map(str, items)).strip()
    if text in NAMES:
        return text
    words = text.split(",")
    try:
        numbers = [int(word) for word in words]
    except ValueError:
        raise HydrascopeError(
            f"{text!r} is no position: give {', '.join(NAMES)}, a number (-1 is the last position), or several numbers"
        ) from None
    return ",".join(map(str, numbers))


def _subject(model: Locates, number: int, prompt: Prompt, name: str) -> AblationPositions:
    first, end = subject_span(model, number, prompt)
    return AblationPositions(tuple(range(first, end)) if name == "subject" else (end - 1,), end, first)


def _numbered(prompt: str, length: int, wanted: Sequence[int]) -> AblationPositions:
    for position in wanted:
        if not -length <= position < length:
            raise HydrascopeError(f"{prompt} has no position {position}: it is {length} tokens long")
    return AblationPositions(tuple(sorted({position % length for position in wanted})), length)
