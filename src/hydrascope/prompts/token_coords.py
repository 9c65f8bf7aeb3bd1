"""Coordinates of a result for its prompts' tokens: ids, texts, ablated, subjects."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from hydrascope.prompts.positions import AblationPositions
from hydrascope.prompts.prompt import Prompt
from hydrascope.prompts.subjects import Locates, found_subject

#: The span of a prompt without a subject, or with one that can't be found.
NOWHERE = (-1, -1)


def coordinates(
    model: Locates,
    prompts: Sequence[Prompt],
    tokens: Sequence[Sequence[int]],
    positions: Sequence[AblationPositions],
    decode: Callable[[int], str],
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """Return the token coordinates of a result, by their names in `hydrascope.storage.schema`.

    Arrays are `[prompt, token]`, as wide as the longest prompt. Ids are exact. Texts are for readers: each token is
    decoded alone, so that a byte-level token that is a part of a character reads as �, and the texts of a prompt
    needn't join to its text.

    Args:
        tokens: the token ids of each prompt.
        positions: the ablated positions of each prompt.
        decode: a function from a token id to its text.

    Returns:
        The dimensions and the values of each coordinate.
    """
    ids = np.full((len(tokens), max(map(len, tokens))), -1, np.int64)
    ablated = np.zeros(ids.shape, bool)
    for row, (own, at) in enumerate(zip(tokens, positions, strict=True)):
        ids[row, : len(own)] = own
        ablated[row, list(at.positions)] = True
    spans = [found_subject(model, prompt) for prompt in prompts]
    subjects = [prompt.subject if span else "" for prompt, span in zip(prompts, spans, strict=True)]
    ends = np.array([span or NOWHERE for span in spans], np.int64)
    return {
        "token_id": (("prompt", "token"), ids),
        "token_text": (("prompt", "token"), _texts(ids, decode)),
        "token_ablated": (("prompt", "token"), ablated),
        "subject": (("prompt",), np.array(subjects, object)),
        "subject_first": (("prompt",), ends[:, 0]),
        "subject_end": (("prompt",), ends[:, 1]),
    }


def _texts(ids: Int[np.ndarray, "prompt token"], decode: Callable[[int], str]) -> Shaped[np.ndarray, "prompt token"]:
    """Return the text of each token; decode each distinct token once."""
    distinct, indices = np.unique(ids, return_inverse=True)
    texts: Any = ["" if token < 0 else decode(token) for token in distinct.tolist()]
    return np.array(texts, object)[indices.reshape(ids.shape)]
