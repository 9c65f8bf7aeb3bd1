"""Prompts that repeat random words, for induction (Olsson et al. 2022, arXiv 2209.11895).

    Words: lamp river coat stone paper lamp river → coat, not paper

A list of random words begins again; the next word follows from the first time alone. The fields of a prompt:

- `answer`: the word that followed the last one the first time;
- `foil`: another word of the list, which comes later in it;
- `subject`: the same word as the answer, which has occurred once;
- `counterfactual`: the same prompt with answer and foil exchanged, after which the foil is right.

For a model the words are drawn from its tokenizer: tokens that are a space and lower-case letters. Before, they are
those of `hydrascope.prompts.docstring`.
"""

import random
import re
from collections.abc import Iterator, Sequence
from itertools import islice

from hydrascope.prompts.docstring import WORDS
from hydrascope.prompts.made import fitting, one_token_words, require_words, rounds
from hydrascope.prompts.prompt import Prompt, PromptSet, Tokenizes

#: The numbers of words in the list.
LENGTHS = (8, 12, 16, 20)

#: The number of words that are drawn from a tokenizer, and of tokens that are tried for it.
_DRAWN, _TRIED = 1000, 20_000


def prompts(words: Sequence[str] = WORDS, seed: int = 0) -> Iterator[Prompt]:
    """Yield prompts; each 4 successive ones hold each length of the list once.

    Args:
        words: at least as many as the longest list has.
        seed: the seed of all draws.
    """

    def made(length: int, rng: random.Random) -> Prompt:
        drawn = rng.sample(words, length)
        # At least a quarter is repeated, so that a model can tell that the list begins again.
        end = rng.randint(length // 4, length - 2)
        other = rng.randint(end + 1, length - 1)
        twin = [*drawn]
        twin[end], twin[other] = drawn[other], drawn[end]
        return Prompt(
            _listed(drawn, end),
            drawn[end],
            foil=drawn[other],
            subject=drawn[end],
            counterfactual=_listed(twin, end),
            template=f"{length} words",
        )

    return rounds(LENGTHS, made, seed)


def _listed(words: Sequence[str], end: int) -> str:
    # The first word has a space before it, too, and so the same token both times.
    return " ".join(["Words:", *words, *words[:end]])


def prompt_set(count: int = 1000) -> PromptSet:
    """Return a set of `count` prompts, to be fitted to a model with `PromptSet.fit_to`.

    Fitting fails with a HydrascopeError if the tokenizer has too few words of one token.

        >>> prompt_set(1).prompts[0].answer
        'rope'
    """
    return PromptSet("induction", tuple(islice(prompts(), count)), fit=fit)


def fit(model: Tokenizes, count: int) -> tuple[list[Prompt], str]:
    """Return at most `count` prompts of the tokenizer's words, and a note on their number.

    Raises:
        HydrascopeError: the tokenizer has too few words of one token.
    """
    words = vocabulary(model)
    require_words(model, "induction", words, max(LENGTHS), "words of one token each")
    made = fitting(model, "induction", prompts(words), count)
    return made, f"induction: {len(made):,} prompts of {len(words):,} words that are one token for {model.name}"


def vocabulary(model: Tokenizes, seed: int = 0) -> list[str]:
    """Return up to 1,000 random words that are one token after a space.

    A word has two or more lower-case letters.

    Args:
        seed: the seed of the draw.
    """
    if model.tokenizer is None:
        return []
    ids = range(min(model.known_tokens, len(model.tokenizer)))
    drawn = random.Random(seed).sample(ids, min(_TRIED, len(ids)))
    texts = (str(model.tokenizer.decode([token])).strip() for token in drawn)
    words = dict.fromkeys(text for text in texts if re.fullmatch("[a-z]{2,}", text))
    return one_token_words(model, words)[:_DRAWN]
