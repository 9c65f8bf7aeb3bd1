"""The tokens of a page's prompts: their texts, and marks of ablated and subject tokens."""

import numpy as np

from hydrascope.measures import EffectsOnly
from hydrascope.reports.html.array_encoding import Arrays

#: The marks of a token, as bits.
ABLATED, SUBJECT = 1, 2


def keep_tokens(effects: EffectsOnly, arrays: Arrays) -> list[str]:
    """Add the array `tokens` [2, prompt, token]: the index of each token's text, and its marks.

    After a prompt's last token the index is −1 and the marks are 0.

    Returns:
        The distinct texts of tokens; empty if the result doesn't hold its tokens.
    """
    if "token_id" not in effects.data.coords:
        return []
    within = effects["token_id"].values >= 0
    texts, indices = np.unique(effects["token_text"].values.astype(object), return_inverse=True)
    position = np.arange(effects.sizes["token"])
    first, end = (effects[name].values[:, None] for name in ("subject_first", "subject_end"))
    marks = ABLATED * effects["token_ablated"].values + SUBJECT * ((first <= position) & (position < end))
    arrays.add("tokens", np.stack([np.where(within, indices.reshape(within.shape), -1), marks]))
    return [str(text) for text in texts]
