"""Divide prompts into a half that chooses components and one that measures them.

The largest of many is too large on the prompts on which it was chosen, but not on others.
"""

from dataclasses import replace

import numpy as np

from hydrascope.models.language_model import LanguageModel
from hydrascope.prompts.prepare import prepare
from hydrascope.prompts.prompt import AnyPrompts, PromptSet
from hydrascope.runs.sweep import tell
from hydrascope.utils.errors import HydrascopeError
from hydrascope.utils.text import counted


def halves(model: LanguageModel, prompts: AnyPrompts, seed: int, chosen: str) -> tuple[PromptSet, PromptSet]:
    """Return a random half of the prompts, and the other, without prompts that both would hold.

    Args:
        model: the model.
        prompts: as for `sweep`.
        seed: the seed of the draw.
        chosen: the name of what the first half chooses, for messages.

    Raises:
        HydrascopeError: there are fewer than two prompts, or one doesn't suit the model.
    """
    # A text may be the name of a set, which is refused where prompts are prepared.
    given, note = (prompts, "") if isinstance(prompts, str) else PromptSet.of(prompts).fit_to(model)
    kept = prepare(model, given, answered="alone").kept
    if len(kept) < 2:
        raise HydrascopeError(f"{chosen} are chosen on half of the prompts: give at least 2 that differ")
    assert isinstance(given, PromptSet)
    again = len(given) - len(kept)
    left_out = again and f"{counted(again, 'prompt', 'prompts')} left out: the same tokens as an earlier one"
    tell([line for line in (note, left_out) if line], None)
    order = np.random.default_rng(seed).permutation(kept)
    divided = (np.sort(order[: len(kept) // 2]), np.sort(order[len(kept) // 2 :]))
    first, second = (replace(given, prompts=tuple(given.prompts[index] for index in half)) for half in divided)
    return first, second
