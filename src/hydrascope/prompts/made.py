"""Make prompt sets for a tokenizer: words of one token, balanced rounds, fitting twins."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from hydrascope.prompts.answers import answer_tokens, foil_tokens
from hydrascope.prompts.prompt import Prompt, Tokenizes
from hydrascope.prompts.token_ids import tokenize
from hydrascope.prompts.twins import counterfactual_tokens, require_same_length
from hydrascope.utils.errors import HydrascopeError

Kind = TypeVar("Kind")

#: The number of draws without a new prompt after which there are taken to be no more.
_DRAWS = 200


def one_token_words(model: Tokenizes, words: Iterable[str]) -> list[str]:
    """Return the words that are a single, distinct token after a space.

    >>> one_token_words(model, ["fox", "platypus"])
    ['fox']
    """
    before, unknown = model.encode("the"), getattr(model.tokenizer, "unk_token_id", None)
    token_of = {}
    for word in words:
        together = model.encode(f"the {word}")
        if together[:-1] == before and together[-1] != unknown:
            token_of[word] = together[-1]
    # A word-level tokenizer has one token for all unknown words.
    uses = Counter(token_of.values())
    return [word for word, token in token_of.items() if uses[token] == 1]


def rounds(kinds: Sequence[Kind], make: Callable[[Kind, random.Random], Prompt], seed: int = 0) -> Iterator[Prompt]:
    """Yield prompts in rounds, each with one prompt of each kind in a random order.

    Any number of first prompts is balanced over the kinds. No text comes twice. The prompts end when a kind has no new
    one.

    Args:
        kinds: the kinds of prompts.
        make: makes a prompt of one kind at random.
        seed: the seed of all draws.
    """
    rng, made = random.Random(seed), set()
    while True:
        for kind in rng.sample(kinds, len(kinds)):
            drawn = (make(kind, rng) for _ in range(_DRAWS))
            prompt = next((each for each in drawn if each.text not in made), None)
            if prompt is None:
                return
            made.add(prompt.text)
            yield prompt


def fitting(model: Tokenizes, name: str, prompts: Iterable[Prompt | None], count: int) -> list[Prompt]:
    """Return the first `count` prompts that suit a tokenizer.

    A prompt suits it if its twin has as many tokens, and if its answer and its foil begin with different tokens that
    continue the prompt.

    Args:
        name: the name of the set.
        prompts: prompts to choose from; None stands for one that doesn't suit.

    Raises:
        HydrascopeError: none of the first prompts does.
    """
    tried = islice(prompts, 10 * count + _DRAWS)
    made = list(islice((prompt for prompt in tried if prompt is not None and _suits(model, prompt)), count))
    if not made:
        raise HydrascopeError(
            f"no prompt of the set {name} suits the tokenizer of {model.name}: choose another prompt set or model"
        )
    return made


def _suits(model: Tokenizes, prompt: Prompt) -> bool:
    try:
        own, twin = tokenize(model, [prompt]), counterfactual_tokens(model, [prompt])
        require_same_length([prompt], own, twin)
        return answer_tokens(model, [prompt]) != foil_tokens(model, [prompt])
    except HydrascopeError:
        return False


def require_words(model: Tokenizes, name: str, words: Sequence[object], fewest: int, needed: str) -> None:
    """Make sure that a model has enough words of one token for a set.

    Args:
        name: the name of the set.
        words: those that it has.
        fewest: the least number of them.
        needed: a noun for them, with what they must be.

    Raises:
        HydrascopeError: it has too few; the message gives their number.
    """
    if len(words) < fewest:
        raise HydrascopeError(
            f"the prompt set {name} needs {fewest} {needed}, {model.name} has {len(words)}: choose another prompt set "
            "or model"
        )
