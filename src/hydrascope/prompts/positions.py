"""At which of a prompt's positions its components are ablated, and which places of other prompts correspond to them.

`last` (the paper's), `all`, `subject` (all tokens of the prompt's subject), `subject-last`, a number (-1 is the last
position, 0 the first), or a list of numbers. Places in two prompts correspond if they are as far from the prompt's
end, or, where the subject is ablated, from the subject's.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hydrascope.prompts.prompt import Prompt, prompt_label
from hydrascope.prompts.subjects import Locates, subject_span
from hydrascope.utils.errors import HydrascopeError

#: `last`, `all`, `subject`, `subject-last`, a position, or several; as text, numbers are joined by commas.
At = str | int | Sequence[int]

#: Positions that have a name; those of the subject need one.
SUBJECT = ("subject", "subject-last")
NAMES = ("last", "all", *SUBJECT)


@dataclass(frozen=True)
class AblationPositions:
    """Where one prompt is ablated.

    Attributes:
        positions: ascending, counted from the prompt's start.
        end: what they are counted back from: the end of the prompt, or of its subject.
        start: before here nothing corresponds to them: the start of the prompt, or of its subject.
    """

    positions: tuple[int, ...]
    end: int
    start: int = 0

    @property
    def offsets(self) -> tuple[int, ...]:
        """How far each is from `end`; 1 is the position right before it."""
        return tuple(self.end - position for position in self.positions)

    def has(self, offsets: Sequence[int]) -> bool:
        """Whether this prompt is long enough to have a place as far from its end as each of `offsets`."""
        return max(offsets) <= self.end - self.start


def resolve_positions(
    model: Locates, prompts: Sequence[Prompt], tokens: Sequence[Sequence[int]], at: At
) -> tuple[AblationPositions, ...]:
    """Where each prompt is ablated.

    Raises:
        HydrascopeError: `at` is none of `At`, a prompt is too short for a position, or has no subject where it is
            asked for.
    """
    name = format_positions(at)
    if name in SUBJECT:
        return tuple(_subject(model, number, prompt, name) for number, prompt in enumerate(prompts, start=1))
    if name == "all":
        return tuple(AblationPositions(tuple(range(len(ids))), len(ids)) for ids in tokens)
    numbers = [-1] if name == "last" else [int(number) for number in name.split(",")]
    each = enumerate(zip(prompts, tokens, strict=True), start=1)
    return tuple(_numbered(prompt_label(number, prompt), len(ids), numbers) for number, (prompt, ids) in each)


def format_positions(at: At) -> str:
    """`at` as text, as results record it.

    Raises:
        HydrascopeError: it is none of `At`.
    """
    several = list(at) if isinstance(at, Iterable) and not isinstance(at, str) else [at]
    text = ",".join(map(str, several)).strip()
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
