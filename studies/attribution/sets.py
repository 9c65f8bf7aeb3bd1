"""The halves of the study's sets of prompts: other templates, and other words."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from hydrascope.prompts import agreement, greater_than, ioi
from hydrascope.prompts.made import fitting, one_token_words
from hydrascope.prompts.prompt import Prompt, PromptSet, Tokenizes
from studies.brakes import templates as brakes
from studies.damping.halves import HALVES, Half, take

_AGREEMENT = (
    "Most people say that the {noun} near the {other}",
    "It is clear that the {noun} behind the {other}",
    "The wind is cold and the {noun} near the {other}",
    "The streets are wet, but the {noun} beside the {other}",
    "The lesson is over, and the {noun} next to the {other}",
    "The curtains are open because the {noun} near the {other}",
    "We were told that the {noun} beneath the {other}",
    "Their letter says that the {noun} beyond the {other}",
    "The lights are out, and the {noun} in front of the {other}",
    "The road is long, but the {noun} below the {other}",
    "My aunt believes that the {noun} near the {other}",
    "The stars are bright, and the {noun} behind the {other}",
)

_GREATER_THAN = (
    "The museum shows pictures of the {event} from {start} to {end}",
    "In this town the {event} lasted from {start} until {end}",
    "He wrote a short history of the {event}, {start}-{end}",
    "The stone beside the church recalls the {event} of {start} to {end}",
    "The old map dates from the {event} between {start} and {end}",
    "Our teacher spoke about the {event} which lasted from {start} to {end}",
    "The first volume covers the {event} ({start}-{end}",
    "Few records survive of the {event} that ran from {start} to {end}",
    "The song tells of the {event} in the years {start} to {end}",
    "A painting in the town hall shows the {event} of {start}-{end}",
    "The law was changed during the {event}, which began in {start} and ended in {end}",
    "The village was poor throughout the {event}, from the year {start} to the year {end}",
)

#: The templates of each half, by set.
TEMPLATES: dict[str, dict[Half, tuple[str, ...]]] = {
    "ioi": {"exploration": ioi.TEMPLATES, "confirmation": brakes.NEW},
    "agreement": {"exploration": agreement.TEMPLATES, "confirmation": _AGREEMENT},
    "greater-than": {"exploration": greater_than.TEMPLATES, "confirmation": _GREATER_THAN},
}


def prompts_of(
    settings: Mapping[str, Any], sets: Mapping[str, PromptSet], label: str, half: Half, model: Tokenizes
) -> PromptSet:
    """Return the prompts of a half of a set, as many of each template, those of a template apart.

    Args:
        settings: the study's settings.
        sets: the sets by name; those that are made for a tokenizer are made anew.
        label: the name of the set.
        half: the half.
        model: the model whose tokenizer they are for.
    """
    halves = settings["halves"]
    count = halves[half]
    if label not in TEMPLATES:
        return PromptSet.of(take(sets[label], half, halves, halves["explored_before"]), f"{label}, {half}")
    templates = TEMPLATES[label][half]
    # Templates come in rounds, so that three times as many prompts hold enough of each.
    made = islice(_MAKE[label](half, model, 3 * count), 3 * count)
    return PromptSet.of([*_of_each(made, templates, count // len(templates))], f"{label}, {half}")


def spread(prompts: PromptSet, count: int) -> PromptSet:
    """Return about `count` prompts at equal distances, so that all templates stay."""
    step = max(1, len(prompts) // count)
    return PromptSet.of(prompts.prompts[::step][:count], prompts.name)


def blocks_of(prompts: int, blocks: int) -> list[int]:
    """Return the block of each prompt: equal parts, which are templates where there are as many.

    >>> blocks_of(6, 3)
    [0, 0, 1, 1, 2, 2]
    """
    return [place * min(blocks, prompts) // prompts for place in range(prompts)]


def _of_each(prompts: Iterable[Prompt], templates: Iterable[str], count: int) -> Iterator[Prompt]:
    made = list(prompts)
    for template in templates:
        yield from [prompt for prompt in made if prompt.template == template][:count]


def _ioi(half: Half, model: Tokenizes, count: int) -> Iterator[Prompt]:
    names = one_token_words(model, ioi.NAMES)[HALVES.index(half) :: 2]
    return ioi.prompts(names, templates=TEMPLATES["ioi"][half])


def _agreement(half: Half, model: Tokenizes, count: int) -> Iterator[Prompt]:
    words = {word: 0 for pair in (*agreement.SUBJECTS, *agreement.ATTRACTORS) for word in pair}
    known = {*one_token_words(model, words)}
    nouns = (
        [pair for pair in pairs if {*pair} <= known][HALVES.index(half) :: 2]
        for pairs in (agreement.SUBJECTS, agreement.ATTRACTORS)
    )
    templates = TEMPLATES["agreement"][half]
    return iter(fitting(model, "agreement", agreement.prompts(*nouns, templates=templates), count))


def _greater_than(half: Half, model: Tokenizes, count: int) -> Iterator[Prompt]:
    templates = TEMPLATES["greater-than"][half]
    made = (
        greater_than.ended(model, prompt)
        for prompt in greater_than.prompts(templates=templates)
        if int(str(prompt.subject)[:2]) % 2 == HALVES.index(half)
    )
    return iter(fitting(model, "greater-than", made, count))


_MAKE = {"ioi": _ioi, "agreement": _agreement, "greater-than": _greater_than}
