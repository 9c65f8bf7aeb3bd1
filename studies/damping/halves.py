"""The halves of a set of prompts: one to explore, one to confirm."""

from collections.abc import Mapping
from typing import Any, Literal

import hydrascope as hs

Half = Literal["exploration", "confirmation"]
HALVES: tuple[Half, ...] = ("exploration", "confirmation")


def places(half: Half, prompts: int, explored_before: int = 0) -> list[int]:
    """Return the places of a half: even ones and all explored ones, or the odd ones that nobody looked at.

        >>> places("exploration", 8, explored_before=3), places("confirmation", 8, explored_before=3)
        ([0, 1, 2, 4, 6], [3, 5, 7])

    Args:
        half: the half.
        prompts: the number of prompts in the set.
        explored_before: the number of prompts, from the first on, that were used up before.
    """
    chosen = [place for place in range(prompts) if place < explored_before or place % 2 == 0]
    return chosen if half == "exploration" else sorted({*range(prompts)} - {*chosen})


def take(prompts: hs.prompts.PromptSet, half: Half, sizes: Mapping[str, Any], explored_before: int = 0) -> list[Any]:
    """Return the first prompts of a half.

    Args:
        prompts: the set.
        half: the half.
        sizes: the number of prompts by half.
        explored_before: as for `places`.
    """
    chosen = places(half, len(prompts), explored_before)[: sizes[half]]
    return [prompts.prompts[place] for place in chosen]
