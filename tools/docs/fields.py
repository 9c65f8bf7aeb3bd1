"""The tables of fields on docs/json.md, from the data classes that commands print: `python -m tools.docs.fields`."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydrascope.measures import MIN_SHARE, NEGLIGIBLE
from hydrascope.reports.summary.shapes import SHAPES

PAGE = Path(__file__).parents[2] / "docs" / "json.md"
BEGIN, END = "<!-- fields: begin -->\n", "<!-- fields: end -->\n"

_WORDS = {str: "text", bool: "`true` or `false`", int: "whole number", float: "number or `null`", NoneType: "`null`"}
#: `name: meaning` or `name, name: meaning` in a section of attributes; further lines are indented.
_ATTRIBUTE = re.compile(r"^    (?P<names>\w+(?:, \w+)*): (?P<meaning>.*(?:\n {5,}.*)*)", re.MULTILINE)


def in_page(page: str) -> str:
    """Return the page with its tables made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


def tables() -> str:
    """Return a section with a table for each data class, those of the commands first."""
    named = f"In the tables, `MIN_SHARE` is {MIN_SHARE:g} and `NEGLIGIBLE` is {NEGLIGIBLE:g}.\n"
    return "\n".join([named, *map(_table, _reached([*SHAPES.values()]))])


def meanings(shape: type) -> dict[str, str]:
    """Return the meaning of each field of a data class, from its docstring.

    Raises:
        ValueError: a field isn't described.
    """
    _, _, section = inspect.cleandoc(shape.__doc__ or "").partition("Attributes:\n")
    found = {
        name: " ".join(each["meaning"].split())
        for each in _ATTRIBUTE.finditer(section)
        for name in each["names"].split(", ")
    }
    names = [field.name for field in fields(shape)]
    if missing := [name for name in names if name not in found]:
        raise ValueError(f"the docstring of {shape.__name__} doesn't describe {missing[0]}")
    return {name: found[name] for name in names}


def _table(shape: type) -> str:
    hints, told = get_type_hints(shape), meanings(shape)
    rows = [
        f"| `{field.name}` | {_in_words(hints[field.name])} | {_cell(told[field.name])} |" for field in fields(shape)
    ]
    return "\n".join([f"### {shape.__name__}", "", "| field | type | meaning |", "|---|---|---|", *rows, ""])


def _cell(meaning: str) -> str:
    """Return a meaning as it reads in JSON and in a table."""
    return re.sub(r"\bNaN\b|\bNone\b", "`null`", meaning).replace("|", "\\|").removesuffix(".")


def _reached(shapes: list[type]) -> list[type]:
    """Return data classes and all that their fields hold, breadth first."""
    for shape in shapes:  # it grows
        for hint in get_type_hints(shape).values():
            shapes += [each for each in _inside(hint) if each not in shapes]
    return shapes


def _inside(hint: Any) -> Iterator[type]:
    if is_dataclass(hint) and isinstance(hint, type):
        yield hint
    elif get_origin(hint) is not Literal:
        for each in get_args(hint):
            yield from _inside(each)


def _in_words(hint: Any) -> str:
    """Return the type of a field in words."""
    if hint in _WORDS:
        return _WORDS[hint]
    if is_dataclass(hint) and isinstance(hint, type):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    kind, inside = get_origin(hint), get_args(hint)
    if kind is Literal:
        return ", ".join(f"`{each}`" for each in inside)
    if kind is tuple:
        return f"list of {'' if inside[-1] is Ellipsis else f'{len(inside)} '}{_in_words(inside[0])}"
    if kind is dict:
        return f"object: {_in_words(inside[1])} by name"
    if kind in (Union, UnionType):
        return " or ".join(map(_in_words, inside))
    raise ValueError(f"no words for {hint}")


if __name__ == "__main__":
    PAGE.write_text(in_page(PAGE.read_text("utf-8")), "utf-8")
