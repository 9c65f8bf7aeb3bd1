"""Prompts for agreement of subject and verb (Linzen et al. 2016, arXiv 1611.01368).

    Everybody knows that the painters beside the bridge → are, not is

Between the subject and its verb stands a noun of the other number, the *attractor* (also Marvin & Linzen 2018, arXiv
1808.09031, *across a prepositional phrase*). A model that agrees with the last noun is always wrong. The fields of a
prompt:

- `answer`: the form of "be" that agrees with the subject, `is` or `are`;
- `foil`: the other form, which agrees with the attractor;
- `subject`: the subject's noun;
- `counterfactual`: the same sentence with the subject in the other number, after which the foil is right.

Sentences and nouns are the project's own. Only nouns that are one token in both numbers are used for a model, so that
a prompt and its twin have the same length.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import islice

from hydrascope.prompts.made import fitting, one_token_words, require_words, rounds
from hydrascope.prompts.prompt import Prompt, PromptSet, Tokenizes

#: Half of the sentences that begin with a clause of their own have a plural there.
TEMPLATES = (
    "Everybody knows that the {noun} beside the {other}",
    "Nobody knows whether the {noun} beside the {other}",
    "You can see that the {noun} under the {other}",
    "The sky is blue and the {noun} under the {other}",
    "The soup is cold, but the {noun} behind the {other}",
    "The music is loud because the {noun} behind the {other}",
    "The clouds are dark, and the {noun} under the {other}",
    "The nights are long, and the {noun} beside the {other}",
    "The apples are ripe, but the {noun} under the {other}",
    "I am sure that the {noun} behind the {other}",
    "My brother thinks that the {noun} beside the {other}",
    "She says that the {noun} in front of the {other}",
)

_SUBJECTS = """
    actor/actors artist/artists baby/babies bird/birds book/books bottle/bottles box/boxes boy/boys brother/brothers
    cat/cats coat/coats cow/cows cup/cups doctor/doctors dog/dogs driver/drivers farmer/farmers friend/friends
    girl/girls guard/guards guest/guests horse/horses key/keys lamp/lamps lawyer/lawyers letter/letters
    neighbour/neighbours nurse/nurses officer/officers painter/painters parcel/parcels picture/pictures player/players
    sailor/sailors singer/singers sister/sisters soldier/soldiers student/students teacher/teachers visitor/visitors
    worker/workers writer/writers
"""

_ATTRACTORS = """
    boat/boats bridge/bridges bus/buses cabin/cabins car/cars chair/chairs church/churches door/doors garden/gardens
    gate/gates house/houses machine/machines rock/rocks shop/shops statue/statues table/tables tent/tents tower/towers
    train/trains tree/trees truck/trucks wall/walls window/windows
"""


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((one, more) for one, more in (pair.split("/") for pair in text.split()))


#: Nouns in the singular and in the plural.
SUBJECTS, ATTRACTORS = _pairs(_SUBJECTS), _pairs(_ATTRACTORS)

Pairs = Sequence[tuple[str, str]]

#: The least number of subjects, and of attractors.
_FEWEST = 4


def prompts(
    subjects: Pairs = SUBJECTS, attractors: Pairs = ATTRACTORS, seed: int = 0, templates: Sequence[str] = TEMPLATES
) -> Iterator[Prompt]:
    """Yield prompts; each round of 24 holds each of the 12 templates once in each number.

    Args:
        subjects: nouns in the singular and in the plural.
        attractors: the same, for the noun next to the verb.
        seed: the seed of all draws.
        templates: sentences with `{noun}` and `{other}`.
    """

    def made(kind: tuple[str, int], rng: random.Random) -> Prompt:
        template, number = kind
        subject, attractor = rng.choice(subjects), rng.choice(attractors)[1 - number]
        verbs = ("is", "are")
        return Prompt(
            template.format(noun=subject[number], other=attractor),
            verbs[number],
            foil=verbs[1 - number],
            subject=subject[number],
            counterfactual=template.format(noun=subject[1 - number], other=attractor),
            template=template,
        )

    return rounds([(template, number) for template in templates for number in (0, 1)], made, seed)


def prompt_set(count: int = 1000) -> PromptSet:
    """Return a set of `count` prompts, to be fitted to a model with `PromptSet.fit_to`.

    Fitting fails with a HydrascopeError if too few nouns are one token in both numbers.

        >>> prompt_set(1).prompts[0].text
        'The clouds are dark, and the horse under the tables'
    """
    return PromptSet("agreement", tuple(islice(prompts(), count)), fit=fit)


def fit(model: Tokenizes, count: int) -> tuple[list[Prompt], str]:
    """Return at most `count` prompts with one-token nouns, and a note on the number of nouns.

    Raises:
        HydrascopeError: too few nouns are one token in both numbers.
    """
    known = {*one_token_words(model, {word: 0 for pair in (*SUBJECTS, *ATTRACTORS) for word in pair})}
    subjects, attractors = ([pair for pair in pairs if {*pair} <= known] for pairs in (SUBJECTS, ATTRACTORS))
    for nouns, noun in ((subjects, "subjects"), (attractors, "attractors")):
        require_words(model, "agreement", nouns, _FEWEST, f"{noun} of one token in both numbers")
    made = fitting(model, "agreement", prompts(subjects, attractors), count)
    total = len(SUBJECTS) + len(ATTRACTORS)
    words = f"{len(subjects) + len(attractors)} of {total} nouns are one token in both numbers for {model.name}"
    return made, f"agreement: {words}: {len(made):,} prompts use them"
