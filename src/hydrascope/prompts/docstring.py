'''Prompts for the arguments in a docstring (Heimersheim & Janiak 2023).

    def count(self, shop, river, coat, lamp):
        """paper window

        :param shop: bread garden
        :param river: stone music
        :param → coat, not lamp

A function documents its arguments in their order; the next one is asked for. Stefan Heimersheim and Jett Janiak found
how a small model does it in *A circuit for Python docstrings in a 4-layer attention-only transformer* (LessWrong,
February 2023). The fields of a prompt:

- `answer`: the next argument;
- `foil`: the argument after it;
- `subject`: the next argument, which stands in the signature alone;
- `counterfactual`: the same prompt with these two arguments exchanged in the signature, after which the foil is right.

Words are the project's own, drawn at random, so that no meaning helps. Only words of one token are used for a model.
'''

import random
from collections.abc import Iterator, Sequence
from itertools import islice

from hydrascope.prompts.made import fitting, one_token_words, require_words, rounds
from hydrascope.prompts.prompt import Prompt, PromptSet, Tokenizes

_METHOD, _FUNCTION = "def {name}(self, {0}, {1}, {2}, {3}):", "def {name}({0}, {1}, {2}, {3}):"

#: The signature and the word before an argument, of each style of documentation.
TEMPLATES = {
    "Sphinx, method": (_METHOD, ":param"),
    "Sphinx, function": (_FUNCTION, ":param"),
    "Sphinx, arg": (_METHOD, ":arg"),
    "Epytext": (_METHOD, "@param"),
}

#: Words 4 to 9 describe.
_BODY = '''
    """{4} {5}

    {mark} {0}: {6} {7}
    {mark} {1}: {8} {9}
    {mark}'''

_FUNCTIONS = ("count", "find", "load", "move", "open", "read", "send", "sort", "start", "write")

_WORDS = """
    apple bank bread bridge candle chair church circle city clock cloud coat corn cup desk doctor door dress driver
    engine farm field finger fish flag floor flower forest garden glass gold grass hall hand harbor hat hill horse
    hotel house island judge kitchen lake lamp leaf letter market meat milk mirror money moon mountain mouth music
    neck night nurse ocean office orange paper park pen picture pilot plant plate pocket prison queen rain ribbon ring
    river road rock roof rope salt school shade shirt shoe shop silver smoke snow song station stone storm street
    student sugar summer table teacher tower town train tree valley village voice wall water weather wheel wind window
    winter wood yard
"""

#: Common English nouns.
WORDS = tuple(_WORDS.split())

#: The least number of words: four arguments, and six that describe.
_FEWEST = 10


def prompts(words: Sequence[str] = WORDS, seed: int = 0) -> Iterator[Prompt]:
    """Yield prompts; each 4 successive ones hold each style of documentation once.

    Args:
        words: ten words at least.
        seed: the seed of all draws.
    """

    def made(style: str, rng: random.Random) -> Prompt:
        signature, mark = TEMPLATES[style]
        name, drawn = rng.choice(_FUNCTIONS), rng.sample(words, _FEWEST)
        answer, foil = drawn[2:4]
        body = _BODY.format(*drawn, mark=mark)
        return Prompt(
            signature.format(*drawn, name=name) + body,
            answer,
            foil=foil,
            subject=answer,
            counterfactual=signature.format(*drawn[:2], foil, answer, name=name) + body,
            template=style,
        )

    return rounds([*TEMPLATES], made, seed)


def prompt_set(count: int = 1000) -> PromptSet:
    """Return a set of `count` prompts, to be fitted to a model with `PromptSet.fit_to`.

    Fitting fails with a HydrascopeError if the model has a single token for too few words.

        >>> prompt_set(1).prompts[0].answer
        'town'
    """
    return PromptSet("docstring", tuple(islice(prompts(), count)), fit=fit)


def fit(model: Tokenizes, count: int) -> tuple[list[Prompt], str]:
    """Return at most `count` prompts with one-token words, and a note on the number of words.

    Raises:
        HydrascopeError: too few words are one token.
    """
    words = one_token_words(model, WORDS)
    require_words(model, "docstring", words, _FEWEST, "words of one token each")
    made = fitting(model, "docstring", prompts(words), count)
    known = f"{len(words)} of {len(WORDS)} words are one token for {model.name}"
    return made, f"docstring: {known}: {len(made):,} prompts use them"
