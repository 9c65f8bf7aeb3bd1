"""The exception and the warning for users, and text that is safe to print on a terminal."""

import unicodedata
from itertools import takewhile

#: Unicode categories that steer a terminal or disguise a text: controls, formats such as bidirectional overrides,
#: halves of surrogate pairs, line separators.
_STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")
#: Harmless formats: the joiners of Persian, of Indian scripts and of emoji.
_JOINERS = "\u200c\u200d"


class HydrascopeError(Exception):
    """An error that the user can mend: its message names the cause and the remedy in one line.

    The command line prints the message alone and exits with code 2. Any other exception is a bug and keeps its
    traceback.
    """

    def __init__(self, message: str) -> None:
        """Join the lines of `message` and escape unsafe characters, since it may quote foreign text."""
        line = " ".join(part.strip() for part in message.splitlines())
        super().__init__(printable(line.replace("\t", " ")))


class HydrascopeWarning(UserWarning):
    """A notice about a measurement that goes on: prompts that were changed, a doubtful number."""


def cause(error: BaseException) -> str:
    """Return the first informative line of another library's error.

    A first line that ends in a colon only announces the next one, so both are returned.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, KeyError):
        return f"it asks for {error}, which is not known"
    announcements = list(takewhile(lambda line: line.endswith(":"), lines))
    return " ".join(lines[: len(announcements) + 1])


def printable(text: str) -> str:
    r"""Escape the characters of `text` that would steer a terminal; keep line breaks and tabs.

    >>> printable("model\x1b[2J\u202e")
    'model\\x1b[2J\\u202e'
    """
    return "".join(
        char
        if char in "\n\t" or char in _JOINERS or unicodedata.category(char) not in _STEERING
        else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )
