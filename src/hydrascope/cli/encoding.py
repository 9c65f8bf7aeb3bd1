"""Print where the encoding lacks characters: on Windows, or where the locale is C."""

import codecs
from typing import TextIO

#: The characters of tables and sentences, in ASCII. A minus sign must stay one, and two fills must stay two.
_PLAIN = {
    "−": "-",
    "–": "-",
    "—": "-",
    "…": "...",
    "→": "->",
    "×": "x",
    "·": ".",
    "≥": ">=",
    "≤": "<=",
    "±": "+-",
    "’": "'",
    "‘": "'",
    "“": '"',
    "”": '"',
    "²": "2",
    "ᵀ": "T",
    "†": "+",
    "⏎": "\\n",
    "□": "?",
    "σ": "sigma",
    "Δ": "D",
    "π": "pi",
    "̂": "^",
    "Σ": "Sum",
    "δ": "d",
    "φ": "phi",
    "█": "#",
    "▓": "=",
    "▒": ":",
    "▚": "/",
    "░": ".",
    "✕": "x",
}
_NAME = "hydrascope"


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Return what stands for characters that an encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(each, "?") for each in error.object[error.start : error.end]), error.end


codecs.register_error(_NAME, _in_ascii)


def take_any_text(stream: TextIO | None) -> None:
    """Let a stream write every text: characters that its encoding lacks become ASCII.

    >>> take_any_text(sys.stdout)  # doctest: +SKIP
    """
    reconfigure = getattr(stream, "reconfigure", None)  # a notebook's stream has none, and takes all
    if reconfigure is not None:
        reconfigure(errors=_NAME)
