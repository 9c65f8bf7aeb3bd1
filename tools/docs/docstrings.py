"""An extension of griffe: docstrings as Markdown, with examples as blocks of code.

griffe reads arguments and errors itself. It would take the first words of `Returns:` for a type.
"""

import re
from textwrap import dedent
from typing import Any

from griffe import Extension, Object

#: Lines from one that begins with `>>>` to the next blank line.
_EXAMPLE = re.compile(r"^(?P<indent>[ ]*)>>>.*\n?(?:^(?P=indent)[ ]*\S.*\n?)*", re.MULTILINE)
_RETURNS = re.compile(r"^(?P<title>Returns|Yields):\n(?P<body>(?:[ ]+.*\n?|\n)+)", re.MULTILINE)


def as_markdown(docstring: str) -> str:
    """Return a docstring with a fence around each example, and its returned value as text."""
    return _RETURNS.sub(_returned, _EXAMPLE.sub(_fenced, docstring))


def _fenced(found: re.Match[str]) -> str:
    """Return an example in a fence."""
    lines = [line.removeprefix(found["indent"]).split("  # doctest:")[0] for line in found[0].rstrip("\n").split("\n")]
    return "\n".join(["```pycon", *(line.rstrip() for line in lines), "```", ""])


def _returned(found: re.Match[str]) -> str:
    """Return a section as text, with lists in lists indented as Python-Markdown asks."""
    body = re.sub(r"^ +", lambda indent: indent[0] * 2, dedent(found["body"]), flags=re.MULTILINE)
    return f"**{found['title']}:**\n\n{body}"


class Docstrings(Extension):
    """Change every docstring that is loaded."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Change the docstring of an object, if it has one."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)
