"""Prompts for the gender of a pronoun (after Mathwin, Corlouer et al. 2023).

    Everybody waited for Helen until → she, not he

The pronoun refers to the person that is named. Mathwin, Corlouer and others asked so in *Identifying a Preliminary
Circuit for Predicting Gendered Pronouns in GPT-2 Small* (report of a hackathon, January 2023). The fields of a prompt:

- `answer`: the pronoun that goes with the name, `she` or `he`;
- `foil`: the other pronoun;
- `subject`: the name;
- `counterfactual`: the same sentence with a name of the other gender, after which the foil is right.

No sentence begins with the name: a model whose tokenizer adds no token at the beginning may read the first word badly.
Sentences are the project's own. The names are those of `hydrascope.prompts.ioi` that are given to one gender alone.
Only names of one token are used for a model, so that a prompt and its twin have the same length.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import islice

from hydrascope.prompts.made import fitting, one_token_words, require_words, rounds
from hydrascope.prompts.prompt import Prompt, PromptSet, Tokenizes

TEMPLATES = (
    "Everybody waited for {name} until",
    "When {name} reached the harbour,",
    "The neighbours like {name} because",
    "As soon as {name} saw the sea,",
    "The children laughed at {name} when",
    "Long before {name} learnt to swim,",
    "By the time {name} came home,",
    "The captain trusted {name} because",
    "While {name} was painting the fence,",
    "Before {name} went to bed,",
    "Nobody believed {name} when",
    "Once {name} had read the letter,",
)

_WOMEN = """
    Alice Amanda Amy Angela Ann Anna Anne Barbara Betty Carol Catherine Charlotte Claire Diana Dorothy Elizabeth Ellen
    Emily Emma Eva Grace Hannah Heather Helen Jane Jennifer Jessica Joan Julia Karen Kate Laura Linda Lisa Lucy
    Margaret Maria Mary Nancy Rachel Rebecca Ruth Sarah Sophia Susan Victoria
"""

_MEN = """
    Adam Alan Albert Andrew Anthony Arthur Ben Brian Carl Charles Daniel David Donald Edward Eric Frank Fred George
    Harry Henry Howard Jack Jacob James Jason Jim John Joseph Keith Kevin Louis Mark Martin Matthew Michael Nicholas
    Oliver Patrick Paul Peter Philip Richard Robert Samuel Simon Stephen Thomas Walter William
"""

WOMEN, MEN = tuple(_WOMEN.split()), tuple(_MEN.split())

#: The least number of names of each gender.
_FEWEST = 4


def prompts(women: Sequence[str] = WOMEN, men: Sequence[str] = MEN, seed: int = 0) -> Iterator[Prompt]:
    """Yield prompts; each 24 successive ones hold each template once with each pronoun.

    Args:
        women: the names that go with "she".
        men: the names that go with "he".
        seed: the seed of all draws.
    """
    names, pronouns = (women, men), ("she", "he")

    def made(kind: tuple[str, int], rng: random.Random) -> Prompt:
        template, gender = kind
        name, twin = rng.choice(names[gender]), rng.choice(names[1 - gender])
        return Prompt(
            template.format(name=name),
            pronouns[gender],
            foil=pronouns[1 - gender],
            subject=name,
            counterfactual=template.format(name=twin),
            template=template,
        )

    return rounds([(template, gender) for template in TEMPLATES for gender in (0, 1)], made, seed)


def prompt_set(count: int = 1000) -> PromptSet:
    """Return a set of `count` prompts, to be fitted to a model with `PromptSet.fit_to`.

    Fitting fails with a HydrascopeError if the model has a single token for too few names.

        >>> prompt_set(1).prompts[0].text
        'By the time Sophia came home,'
    """
    return PromptSet("gender", tuple(islice(prompts(), count)), fit=fit)


def fit(model: Tokenizes, count: int) -> tuple[list[Prompt], str]:
    """Return at most `count` prompts with one-token names, and a note on the number of names.

    Raises:
        HydrascopeError: too few names of a gender are one token.
    """
    known = {*one_token_words(model, (*WOMEN, *MEN))}
    women, men = ([name for name in names if name in known] for names in (WOMEN, MEN))
    for names, noun in ((women, "women"), (men, "men")):
        require_words(model, "gender", names, _FEWEST, f"names of {noun} of one token each")
    made = fitting(model, "gender", prompts(women, men), count)
    words = f"{len(women) + len(men)} of {len(WOMEN) + len(MEN)} names are one token for {model.name}"
    return made, f"gender: {words}: {len(made):,} prompts use them"
