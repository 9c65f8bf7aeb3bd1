"""Twelve sentences that no run had read before the study was declared."""

from collections.abc import Sequence
from itertools import islice

from hydrascope.prompts import ioi
from hydrascope.prompts.made import one_token_words
from hydrascope.prompts.prompt import PromptSet, Tokenizes

NEW = (
    "At the library {first} and {second} looked for a map, and {giver} showed the shelf to",
    "When {first} and {second} missed the bus, {giver} offered an umbrella to",
    "Before the party {first} and {second} cleaned the kitchen, and {giver} passed a sponge to",
    "Because {first} and {second} were hungry, {giver} brought some soup to",
    "After {first} and {second} won the race, {giver} gave the medal to",
    "In the museum {first} and {second} stood before a painting, and {giver} explained it to",
    "While {first} and {second} painted the fence, {giver} threw a brush to",
    "On Friday {first} and {second} met at the station, and {giver} returned the tickets to",
    "Since {first} and {second} had lost the keys, {giver} lent a phone to",
    "Then {first} and {second} opened the parcels, and {giver} handed the scissors to",
    "At the market {first} and {second} chose some apples, and {giver} paid the money to",
    "When {first} and {second} finished the song, {giver} passed the guitar to",
)

#: The templates of each half.
HALVES = {"exploration": ioi.TEMPLATES, "confirmation": NEW}


def prompts_of(half: str, model: Tokenizes, count: int) -> PromptSet:
    """Return the first `count` prompts of a half, with names of one token.

    >>> len(prompts_of("confirmation", model, 24).prompts)                               # doctest: +SKIP
    24
    """
    templates: Sequence[str] = HALVES[half]
    names = one_token_words(model, ioi.NAMES)
    return PromptSet(f"ioi-{half}", tuple(islice(ioi.prompts(names, templates=templates), count)))
