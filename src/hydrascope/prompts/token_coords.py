"""Each prompt's tokens as a result tells them: which they are, which are ablated, and which are the subject's."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from hydrascope.prompts.positions import AblationPositions
from hydrascope.prompts.prompt import Prompt
from hydrascope.prompts.subjects import Locates, found_subject

#: Where a prompt has no subject, or none that can be found.
NOWHERE = (-1, -1)


def coordinates(
    model: Locates,
    prompts: Sequence[Prompt],
    tokens: Sequence[Sequence[int]],
    positions: Sequence[AblationPositions],
    decode: Callable[[int], str],
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """What a result tells of its prompts' tokens, by the names and with the dimensions of `hydrascope.storage.schema`.

    As xarray has it, a rectangle as wide as the longest prompt: what is beyond a shorter one's end compresses to
    nothing. Tokens are told twice. Their ids are exact. Their texts are for readers, each decoded alone, so that it
    stands beside its number: of byte-level BPE a token that is a part of a character reads as �, and texts in a row
    needn't come to the prompt's text again.

    Args:
        decode: the text of one token.
    """
    ids = np.full((len(tokens), max(map(len, tokens))), -1, np.int64)
    ablated = np.zeros(ids.shape, bool)
    for row, (own, place) in enumerate(zip(tokens, positions, strict=True)):
        ids[row, : len(own)] = own
        ablated[row, list(place.positions)] = True
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
    """What each token reads as; each is decoded once."""
    distinct, places = np.unique(ids, return_inverse=True)
    texts: Any = ["" if token < 0 else decode(token) for token in distinct.tolist()]
    return np.array(texts, object)[places.reshape(ids.shape)]
