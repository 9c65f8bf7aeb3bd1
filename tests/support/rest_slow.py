"""Parameters of which a few run always, and the others with the slow tests."""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

#: Architectures that differ most: rotary, learned positions, soft-caps and two norms, parallel blocks, experts.
CORE = ("llama", "gpt2", "gemma2", "gpt_neox", "mixtral")


def rest_slow(cases: Iterable[Any], fast: Sequence[str] = CORE) -> list[Any]:
    """Mark the cases slow whose name, the first of a tuple, isn't among the fast ones."""
    several = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*case, marks=() if case[0] in fast else pytest.mark.slow) for case in several]
