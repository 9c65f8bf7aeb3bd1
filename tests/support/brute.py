"""Effects of components ablated together, by plain passes of a tiny gpt2 or llama, one combination at a time."""

from collections.abc import Callable, Sequence
from itertools import chain, combinations
from math import factorial

import numpy as np
from plain import Plain, plain_run

from hydrascope.models.language_model import LanguageModel

Combination = frozenset[int]


def combinations_of(parts: int) -> list[Combination]:
    """All sets of the numbers of `parts`, the empty one first."""
    return [frozenset(each) for each in chain.from_iterable(combinations(range(parts), n) for n in range(parts + 1))]


def plain_effects(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    sources: np.ndarray,
    parts: Sequence[str],
    read: Callable[[Plain, Plain], float],
) -> dict[Combination, np.ndarray]:
    """`[prompt, patch]` of every combination of `parts`, ablated at the last position.

    Args:
        sources: `[prompt, patch]` the prompt that each patch comes from.
        read: what is made of the clean run and the ablated one.
    """
    clean = [plain_run(model, tokens, units=parts) for tokens in prompts]

    def effect(combination: Combination, prompt: int, source: int) -> float:
        patch = {
            parts[part]: ([len(prompts[prompt]) - 1], clean[source].values[parts[part]][-1:]) for part in combination
        }
        return read(clean[prompt], plain_run(model, prompts[prompt], patch))

    return {
        combination: np.array(
            [[effect(combination, prompt, source) for source in row] for prompt, row in enumerate(sources)]
        )
        for combination in combinations_of(len(parts))
    }


def shapley_values(worth: dict[Combination, np.ndarray], parts: int) -> np.ndarray:
    """`[…, component]` by the subset formula: Σ |S|! (n − |S| − 1)! / n! (v(S ∪ c) − v(S))."""
    values = np.zeros((*np.shape(worth[frozenset()]), parts))
    for part in range(parts):
        for others in combinations_of(parts):
            if part not in others:
                weight = factorial(len(others)) * factorial(parts - len(others) - 1) / factorial(parts)
                values[..., part] += weight * (worth[others | {part}] - worth[others])
    return values
