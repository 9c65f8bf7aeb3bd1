"""The one exception that a user is meant to read, and what of a text a terminal may see."""

import unicodedata
from itertools import takewhile

#: The categories of Unicode that steer a terminal, or show one text as another: controls, formats such as bidirectional
#: overrides, halves of surrogate pairs, separators of lines.
_STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")
#: Formats that words are written with: the joiners of Persian, of Indian scripts and of emoji.
_JOINERS = "\u200c\u200d"


class HydrascopeError(Exception):
    """Something the user can mend: its message names the thing and says what to do, in one line.

    The command line prints the message alone and exits with code 2; anything else is a bug and keeps its
    traceback.
    """

    def __init__(self, message: str) -> None:
        """`message` on one line, as `printable` shows it: what it quotes may be anyone's."""
        line = " ".join(each.strip() for each in message.splitlines())
        super().__init__(printable(line.replace("\t", " ")))


def cause(error: BaseException) -> str:
    """What an error of another library says: its first line, and the next where that only announces it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, KeyError):
        return f"it asks for {error}, which is not known"
    told = list(takewhile(lambda line: line.endswith(":"), lines))
    return " ".join(lines[: len(told) + 1])


def printable(text: str) -> str:
    r"""`text` with what would steer a terminal written as an escape; line breaks and tabs stay.

    >>> printable("model\x1b[2J\u202e")
    'model\\x1b[2J\\u202e'
    """
    return "".join(
        char
        if char in "\n\t" or char in _JOINERS or unicodedata.category(char) not in _STEERING
        else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )
