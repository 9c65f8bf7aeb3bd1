"""The phantom's prompts, and the words that it knows."""

import random
from itertools import product

from hydrascope.prompts.prompt import Prompt, PromptSet

COLOURS = ("red", "green", "blue", "white")


#: Of each colour, from the one that is known least well to the best known.
THINGS = {
    "red": ("fox", "brick", "poppy", "cherry", "tomato", "ruby"),
    "green": ("frog", "cactus", "lime", "pea", "leek", "emerald"),
    "blue": ("whale", "ink", "denim", "sky", "sea", "sapphire"),
    "white": ("swan", "chalk", "salt", "milk", "snow", "pearl"),
}


PLACES = ("garden", "picture", "story", "village", "window")


def prompts() -> PromptSet:
    """Every thing at every place, with and without doubt, each once: 240 prompts in a random order.

    Each has its colour as `answer`, another as `foil`, the thing as `subject`, and as `counterfactual` the same of a
    thing of another colour.
    """
    rng = random.Random(0)
    made = []
    for colour, number, place, doubt in product(COLOURS, range(6), PLACES, ("", "perhaps ")):
        other = rng.choice([each for each in COLOURS if each != colour])
        text = f"{doubt}the {{}} in the {place} is"
        thing, twin = THINGS[colour][number], rng.choice(THINGS[other])
        made.append(Prompt(text.format(thing), colour, foil=other, subject=thing, counterfactual=text.format(twin)))
    rng.shuffle(made)
    return PromptSet.of(made, "phantom")
