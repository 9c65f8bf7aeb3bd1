"""Commands on a page, in blocks of `sh`, with what the page says that they print."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_BLOCK = re.compile(
    r"```(?P<language>python|sh)\n(?P<code>.*?)```\n(?:\n```(?P<kind>text|json)\n(?P<output>.*?)```\n)?", re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A block of code or of commands, and what the page says that it prints, as `text` or `json`."""

    language: str
    code: str
    kind: str
    output: str


@dataclass(frozen=True)
class Command:
    """The arguments of `hydrascope`, and the exit code that a comment behind the command names."""

    arguments: list[str]
    code: int


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page, in order."""
    found = (match.groupdict(default="") for match in _BLOCK.finditer(page))
    return [Block(each["language"], each["code"], each["kind"], each["output"]) for each in found]


def commands(block: Block) -> Iterator[Command]:
    """Yield the commands of a block, a line each.

    Raises:
        ValueError: a line is no command of hydrascope.
    """
    for line in block.code.splitlines():
        program, *arguments = shlex.split(line, comments=True)
        if program != "hydrascope":
            raise ValueError(f"no test runs this line of a page: {line}")
        code = re.search(r"# exit code (\d)", line)
        yield Command(arguments, int(code[1]) if code else 0)


def is_part(part: Any, whole: Any) -> bool:
    """Return whether JSON is a part of other JSON: its keys, elements found anywhere in a list, numbers rounded.

    Numbers are equal if they agree to two decimals, as pages show them.
    """
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(key in whole and is_part(part[key], whole[key]) for key in part)
    if isinstance(part, list):
        # An empty list stands for an empty list.
        return part == whole if not part else all(any(is_part(one, other) for other in whole) for one in part)
    if isinstance(part, float):
        return isinstance(whole, float | int) and abs(part - whole) < 0.0051
    return bool(part == whole)
