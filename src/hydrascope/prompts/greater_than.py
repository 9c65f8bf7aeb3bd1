"""Prompts for years after another (Hanna, Liu & Variengien 2023, arXiv 2305.00586).

    According to the chronicle the siege went on from the year 1648 to the year 16 → 58, not 38

A sentence names the year in which something began, and the century of its end. The fields of a prompt:

- `answer`: the rest of a year ten years later;
- `foil`: the rest of a year ten years earlier;
- `subject`: the year of the beginning;
- `counterfactual`: the paper's 01 prompt, the same sentence with the year 01 of the century, which rules no end out.

Many ends are right, and the answer is one of them: the difference of answer and foil says more than whether the answer
is the likeliest. The set suits tokenizers that read a year digit by digit, in pairs of digits, or as three digits and
one. A fitted prompt ends where the years of answer and foil begin to differ, so its answer and its foil are token ids
(in single digits they are the tens). Years of the beginning end in 6 to 9, after which the next ten is likeliest.

Sentences and words are the project's own.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from hydrascope.prompts.made import fitting, rounds
from hydrascope.prompts.prompt import Prompt, PromptSet, Tokenizes
from hydrascope.utils.text import counted

TEMPLATES = (
    "According to the chronicle the {event} went on from the year {start} to the year {end}",
    "On the plaque in the hall you can read: the {event}, {start}-{end}",
    "A long chapter of this book describes the {event} ({start}-{end}",
    "Her second lecture is about the {event} between the years {start} and {end}",
    "The archive keeps all letters about the {event} from {start} to {end}",
    "Nobody in the valley forgot the {event} of the years {start} to {end}",
)

EVENTS = ("siege", "strike", "drought", "expedition", "dispute", "famine", "feud", "campaign", "occupation", "trial")


def prompts(seed: int = 0, templates: Sequence[str] = TEMPLATES) -> Iterator[Prompt]:
    """Yield prompts that end in a century; answer and foil are the two digits after it.

    Args:
        seed: the seed of all draws.
        templates: sentences with `{event}`, `{start}` and `{end}`, which comes last.
    """
    return rounds(templates, _made, seed)


def _made(template: str, rng: random.Random) -> Prompt:
    century, year = rng.randint(11, 19), 10 * rng.randint(2, 8) + rng.randint(6, 9)
    event, start = rng.choice(EVENTS), f"{century}{year}"
    return Prompt(
        template.format(event=event, start=start, end=century),
        str(year + 10),
        foil=str(year - 10),
        subject=start,
        counterfactual=template.format(event=event, start=f"{century}01", end=century),
        template=template,
    )


def prompt_set(count: int = 1000) -> PromptSet:
    """Return a set of `count` prompts, to be fitted to a model with `PromptSet.fit_to`.

        >>> prompt_set(1).prompts[0].text
        'Her second lecture is about the trial between the years 1558 and 15'

    Fitting fails with a HydrascopeError if the tokenizer reads years in another way.
    """
    return PromptSet("greater-than", tuple(islice(prompts(), count)), fit=fit)


def fit(model: Tokenizes, count: int) -> tuple[list[Prompt], str]:
    """Return at most `count` prompts that end where answer and foil begin to differ, and a note.

    Raises:
        HydrascopeError: the tokenizer reads years in another way.
    """
    made = fitting(model, "greater-than", (ended(model, prompt) for prompt in prompts()), count)
    digits = len(str(model.tokenizer.decode([made[0].answer])).strip())
    where = f"{counted(digits, 'digit', 'digits')} of a year decide for {model.name}"
    return made, f"greater-than: {where}: {len(made):,} prompts end before them"


def ended(model: Tokenizes, prompt: Prompt) -> Prompt | None:
    """Return the prompt cut where the years of answer and foil begin to differ, or None."""
    answered, foiled = model.encode(f"{prompt.text}{prompt.answer}"), model.encode(f"{prompt.text}{prompt.foil}")
    for digits in (2, 0):
        end = len(prompt.text) - 2 + digits
        own = model.encode(prompt.text[:end])
        place = len(own)
        continues = answered[:place] == own == foiled[:place] and min(len(answered), len(foiled)) > place
        if continues and answered[place] != foiled[place]:
            return replace(
                prompt,
                text=prompt.text[:end],
                answer=answered[place],
                foil=foiled[place],
                counterfactual=str(prompt.counterfactual)[:end],
            )
    return None
