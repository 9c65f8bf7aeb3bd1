"""An extension of griffe: examples in docstrings, from `>>>` on, become blocks of code."""

import re
from typing import Any

from griffe import Extension, Object

#: Lines from one that begins with `>>>` to the next blank line.
_EXAMPLE = re.compile(r"^(?P<indent>[ ]*)>>>.*\n?(?:^(?P=indent)[ ]*\S.*\n?)*", re.MULTILINE)


def as_code(docstring: str) -> str:
    """Return a docstring with a fence around each example."""

    def fence(found: re.Match[str]) -> str:
        indent = found["indent"]
        lines = [line.removeprefix(indent) for line in found[0].rstrip("\n").split("\n")]
        return "\n".join(["```pycon", *lines, "```", ""])

    return _EXAMPLE.sub(fence, docstring)


class Examples(Extension):
    """Put a fence around the examples of every docstring that is loaded."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change the docstring of an object, if it has one."""
        if obj.docstring:
            obj.docstring.value = as_code(obj.docstring.value)
