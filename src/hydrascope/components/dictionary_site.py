"""Sites of dictionaries: the places of a model that features are read from and written to."""

from typing import Literal, get_args

from hydrascope.utils.errors import HydrascopeError

#: The kinds of sites. `raw` is a sublayer's output before the norm that follows it in some models, `heads` the outputs
#: of all heads side by side, `stream` the residual stream that enters a block.
DictionarySite = Literal["attn", "mlp", "raw.attn", "raw.mlp", "heads", "transcoder", "stream"]

DICTIONARY_SITES: tuple[DictionarySite, ...] = get_args(DictionarySite)

#: The sublayer that the features of a site belong to; none for the residual stream.
SUBLAYER_AT: dict[DictionarySite, Literal["attn", "mlp"]] = {
    "attn": "attn",
    "raw.attn": "attn",
    "heads": "attn",
    "mlp": "mlp",
    "raw.mlp": "mlp",
    "transcoder": "mlp",
}


def parse_site(site: str) -> tuple[DictionarySite, int]:
    """Return the kind and the block of a site.

    >>> parse_site("raw.mlp.5")
    ('raw.mlp', 5)

    Raises:
        HydrascopeError: there is no such site.
    """
    kind, _, block = site.rpartition(".")
    if kind not in DICTIONARY_SITES or not (block.isdecimal() and len(block) < 10):
        raise HydrascopeError(
            f"{site!r} is no site of a dictionary: write one of {', '.join(DICTIONARY_SITES)}, and the block, as mlp.5"
        )
    return kind, int(block)
