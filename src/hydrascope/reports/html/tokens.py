"""The tokens of a page's prompts: what each reads as, and which are ablated and which the subject's."""

import numpy as np

from hydrascope.measures import EffectsOnly
from hydrascope.reports.html.array_encoding import Arrays

#: What is marked at a token, in bits.
ABLATED, SUBJECT = 1, 2


def keep_tokens(effects: EffectsOnly, arrays: Arrays) -> list[str]:
    """Keep as `tokens` [2, prompt, token] which of the texts each token is, and its marks; −1 and 0 after the last.

    Returns:
        what tokens read as, each text once; nothing where a result doesn't tell its tokens.
    """
    if "token_id" not in effects.data.coords:
        return []
    within = effects["token_id"].values >= 0
    texts, places = np.unique(effects["token_text"].values.astype(object), return_inverse=True)
    place = np.arange(effects.sizes["token"])
    first, end = (effects[name].values[:, None] for name in ("subject_first", "subject_end"))
    marks = ABLATED * effects["token_ablated"].values + SUBJECT * ((first <= place) & (place < end))
    arrays.add("tokens", np.stack([np.where(within, places.reshape(within.shape), -1), marks]))
    return [str(text) for text in texts]
