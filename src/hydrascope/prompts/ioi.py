"""Prompts for indirect object identification (Wang et al. 2022, arXiv 2211.00593).

    When Mary and John left the harbour, John sold a small boat to → Mary

A sentence names two people, then one of them again; the next name is the other one. The *order* is `ABBA` if the answer
is the first of the two names, as here, and `BABA` if it is the second. The fields of a prompt:

- `answer`: the name that occurs once, the indirect object;
- `foil`: the name that occurs twice, the subject of the sentence;
- `subject`: the same name as the foil; `hydrascope.prompts.subjects` finds its last mention, S2 in the paper's terms;
- `counterfactual`: the paper's ABC prompt, the same sentence with three other, different names.

The sentences and the list of names are the project's own. Only names of one token are used for a model, so that a
prompt and its twin have the same length.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import islice, permutations

from hydrascope.prompts.made import one_token_words, require_words
from hydrascope.prompts.prompt import Prompt, PromptSet, Tokenizes

#: Every name has a space before it, and so the same token in all positions.
TEMPLATES = (
    "When {first} and {second} left the harbour, {giver} sold a small boat to",
    "While {first} and {second} waited for the train, {giver} read a poem to",
    "Once {first} and {second} had unpacked the boxes, {giver} handed a hammer to",
    "After {first} and {second} sat down to play, {giver} dealt five cards to",
    "Because {first} and {second} shared an office, {giver} left the spare key to",
    "Last Sunday {first} and {second} baked bread together, and {giver} gave the first slice to",
    "On the way home {first} and {second} stopped at a farm, where {giver} passed a basket of plums to",
    "At the end of the concert {first} and {second} stayed behind, and {giver} showed the violin to",
    "In the garden {first} and {second} were planting beans when {giver} threw a glove to",
    "During the storm {first} and {second} hid in a barn, and {giver} lent a coat to",
    "All morning {first} and {second} sorted old letters, and then {giver} described the stamps to",
    "The lights went out, so {first} and {second} stood still until {giver} whispered something to",
)

_NAMES = """
    Adam Alan Albert Alex Alice Amanda Amy Andrew Angela Ann Anna Anne Anthony Arthur Barbara Ben Betty Brian Carl
    Carol Catherine Charles Charlotte Chris Claire Daniel David Diana Donald Dorothy Edward Elizabeth Ellen Emily Emma
    Eric Eva Frank Fred George Grace Hannah Harry Heather Helen Henry Howard Jack Jacob James Jane Jason Jennifer
    Jessica Jim Joan John Joseph Julia Karen Kate Keith Kelly Kevin Laura Lewis Linda Lisa Louis Lucy Margaret Maria
    Mark Martin Mary Matthew Michael Nancy Nicholas Oliver Patrick Paul Peter Philip Rachel Rebecca Richard Robert
    Rose Ruth Samuel Sarah Simon Sophia Stephen Susan Thomas Victoria Walter William
"""

#: A hundred common English first names.
NAMES = tuple(_NAMES.split())

#: The least number of names: two for a prompt and three for its twin.
_FEWEST = 5


def prompts(names: Sequence[str] = NAMES, seed: int = 0, templates: Sequence[str] = TEMPLATES) -> Iterator[Prompt]:
    """Generate all prompts that `names` allow, each once.

    Names and twins are drawn at random. Each 24 successive prompts hold each of the 12 templates once in each order,
    shuffled, so that any number of first prompts is balanced.

    Args:
        names: five names at least.
        seed: the seed of all draws.
        templates: sentences with `{first}`, `{second}` and `{giver}`, who is one of the two.
    """
    rng = random.Random(seed)
    kinds = [(template, order) for template in templates for order in ("ABBA", "BABA")]
    pairs = list(permutations(names, 2))
    for drawn in zip(*(rng.sample(pairs, len(pairs)) for _ in kinds), strict=True):
        for (template, order), (answer, foil) in rng.sample([*zip(kinds, drawn, strict=True)], len(kinds)):
            twin = rng.sample([name for name in names if name not in (answer, foil)], 3)
            first, second = (answer, foil) if order == "ABBA" else (foil, answer)
            yield Prompt(
                template.format(first=first, second=second, giver=foil),
                answer,
                foil=foil,
                subject=foil,
                counterfactual=template.format(first=twin[0], second=twin[1], giver=twin[2]),
                template=template,
            )


def prompt_set(count: int = 1000) -> PromptSet:
    """Return a set of `count` prompts, to be fitted to a model with `PromptSet.fit_to`.

    Fitting fails with a HydrascopeError if the model has a single token for too few names.

        >>> prompt_set(2).prompts[0].text
        'All morning Alex and Fred sorted old letters, and then Fred described the stamps to'
    """
    return PromptSet("ioi", tuple(islice(prompts(), count)), fit=fit)


def fit(model: Tokenizes, count: int) -> tuple[list[Prompt], str]:
    """Return at most `count` prompts with one-token names, and a note on the number of names.

    Raises:
        HydrascopeError: fewer than five names are one token.
    """
    names = one_token_words(model, NAMES)
    require_words(model, "ioi", names, _FEWEST, "names of one token each")
    made = list(islice(prompts(names), count))
    known = f"{len(names)} of {len(NAMES)} names are one token for {model.name}"
    return made, f"ioi: {known}: {len(made):,} prompts use them"
