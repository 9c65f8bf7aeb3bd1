"""Prompts and vocabulary of the phantom model."""

import random
from itertools import product

from hydrascope.prompts.prompt import Prompt, PromptSet

COLOURS = ("red", "green", "blue", "white")


#: The things of each colour, from the least known to the best known.
THINGS = {
    "red": ("fox", "brick", "poppy", "cherry", "tomato", "ruby"),
    "green": ("frog", "cactus", "lime", "pea", "leek", "emerald"),
    "blue": ("whale", "ink", "denim", "sky", "sea", "sapphire"),
    "white": ("swan", "chalk", "salt", "milk", "snow", "pearl"),
}


PLACES = ("garden", "picture", "story", "village", "window")


def prompts() -> PromptSet:
    """Return 240 prompts in a random order: each thing in each place, with and without doubt.

    The `answer` is the thing's colour, the `foil` another colour, the `subject` the thing. The `counterfactual` names a
    thing of the foil's colour.
    """
    rng = random.Random(0)
    made = []
    for colour, number, place, doubt in product(COLOURS, range(6), PLACES, ("", "perhaps ")):
        other = rng.choice([name for name in COLOURS if name != colour])
        text = f"{doubt}the {{}} in the {place} is"
        thing, twin = THINGS[colour][number], rng.choice(THINGS[other])
        made.append(Prompt(text.format(thing), colour, foil=other, subject=thing, counterfactual=text.format(twin)))
    rng.shuffle(made)
    return PromptSet.of(made, "phantom")
