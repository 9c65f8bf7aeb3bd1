"""Runs the code of a tutorial in Markdown. As a program it writes what the code prints, and its pictures, into it:

python tests/support/tutorial.py docs/causal-tutorial.md
"""

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"```python\n(?P<code>.*?)```\n(?:\n```text\n(?P<output>.*?)```\n)?", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code, what the page says that it prints, and where that stands in the page."""

    code: str
    output: str
    span: tuple[int, int]


def blocks(page: str) -> list[Block]:
    """The Python blocks of a page, in order."""
    return [Block(found["code"], found["output"] or "", found.span("output")) for found in _BLOCK.finditer(page)]


def printed(code: list[Block]) -> Iterator[str]:
    """What each block prints, run one after the other in one namespace."""
    namespace: dict = {}
    for block in code:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(block.code, "<tutorial>", "exec"), namespace)
        yield out.getvalue()


def _rewrite(page: Path) -> None:
    """Run `page`, and write outputs and pictures."""
    text = page.read_text()
    found = blocks(text)
    os.chdir(page.parent)
    for block, output in reversed(list(zip(found, list(printed(found)), strict=True))):
        if block.span[0] >= 0:
            text = text[: block.span[0]] + output + text[block.span[1] :]
    Path(page.name).write_text(text)


if __name__ == "__main__":
    _rewrite(Path(sys.argv[1]).resolve())
