"""Indirect object identification: who was given something, told by who gave it (Wang et al. 2022, arXiv 2211.00593).

    When Mary and John left the harbour, John sold a small boat to → Mary

Two names stand in a sentence, one of them comes again: the next name is the other. Its *order* is `ABBA` where the
answer stands first of the two, as here, and `BABA` where it stands second. A prompt's fields:

- `answer`: the name that stands once, the indirect object;
- `foil`: the name that stands twice, the subject of the sentence;
- `subject`: that same name; its last mention is where `hydrascope.prompts.subjects` finds it: S2 in the paper's terms;
- `counterfactual`: the paper's ABC prompt: the same sentence with three other names, no two alike.

The sentences and the list of names are the project's own. With names of one token each a prompt and its twin are as
long and differ in the names alone, so all other names are left out when the set is fitted to a model.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice, permutations

from hydrascope.prompts.prompt import Prompt, PromptSet, Tokenizes
from hydrascope.utils.errors import HydrascopeError

#: No name begins a text: every name has a space before it, and so the same token wherever it stands.
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

#: Two for a prompt and three for its twin.
_FEWEST = 5


def prompts(names: Sequence[str] = NAMES, seed: int = 0) -> Iterator[Prompt]:
    """All prompts that `names` allow, each once, one after another as they are asked for.

        next(prompts())

    Names are drawn at random, and so are twins. Every 24 prompts in a row hold each of the 12 templates once in each
    order, shuffled; so the first n are balanced for any n.

    Args:
        names: five at least.
        seed: of every draw.
    """
    rng = random.Random(seed)
    kinds = [(template, order) for template in TEMPLATES for order in ("ABBA", "BABA")]
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
            )


def prompt_set(count: int = 1000) -> PromptSet:
    """`count` prompts of all names; fitted to a model, as many of the names that are one token for it.

        prompts, said = prompt_set().limit(200).fitted(model)

    Raises:
        HydrascopeError: when fitted, the model has one token for too few names.
    """
    return PromptSet("ioi", tuple(islice(prompts(), count)), fit=fit)


def fit(model: Tokenizes, count: int) -> tuple[list[Prompt], str]:
    """At most `count` prompts of the names that are one token for `model`, and a line that says how many these are.

    Raises:
        HydrascopeError: they are fewer than five.
    """
    names = one_token_names(model)
    if len(names) < _FEWEST:
        raise HydrascopeError(
            f"the prompt set ioi needs {_FEWEST} names that are one token each, {model.name} has {len(names)}: take "
            "another prompt set or model"
        )
    made = list(islice(prompts(names), count))
    known = f"{len(names)} of {len(NAMES)} names are one token for {model.name}"
    return made, f"ioi: {known}: {len(made):,} prompts are made of them"


def one_token_names(model: Tokenizes) -> list[str]:
    """The `NAMES` that the model has one token for after a space, a token that stands for no other of them."""
    before = model.encode("Then")
    found = {}
    for name in NAMES:
        together = model.encode(f"Then {name}")
        if together[:-1] == before:
            found[name] = together[-1]
    # A tokenizer of words has one token for all that it doesn't know.
    same = Counter(found.values())
    return [name for name, token in found.items() if same[token] == 1]
