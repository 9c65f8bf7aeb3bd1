"""A line of a shipped prompt set, and files of them."""

import json
from collections.abc import Iterable
from pathlib import Path

Line = dict[str, str]


def write(lines: Iterable[Line], path: Path) -> None:
    """A JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def read(path: Path) -> list[Line]:
    """The lines that `write` wrote."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
