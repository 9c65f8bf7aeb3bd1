"""Compares JSON with the data class that it is made from."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def deviations(value: Any, shape: Any, at: str = "") -> list[str]:
    """Return where JSON isn't of a shape: keys too many or missing, or another type."""
    return list(_deviations(value, shape, at))


def _deviations(value: Any, shape: Any, at: str) -> Iterator[str]:
    kind, inside = get_origin(shape), get_args(shape)
    if is_dataclass(shape) and isinstance(shape, type):
        if not isinstance(value, dict) or list(value) != [field.name for field in fields(shape)]:
            yield f"{at}: not the fields of {shape.__name__}"
            return
        for name, hint in get_type_hints(shape).items():
            yield from _deviations(value[name], hint, f"{at}.{name}")
    elif kind is tuple:
        each = [inside[0]] * len(value) if inside[-1] is Ellipsis else list(inside)
        if not isinstance(value, list) or len(value) != len(each):
            yield f"{at}: no list of {shape}"
            return
        for place, (one, hint) in enumerate(zip(value, each, strict=True)):
            yield from _deviations(one, hint, f"{at}[{place}]")
    elif kind is dict:
        for key, one in value.items():
            yield from _deviations(one, inside[1], f"{at}.{key}")
    elif kind in (Union, UnionType):
        if all(deviations(value, each, at) for each in inside):
            yield f"{at}: {value!r} is no {shape}"
    elif kind is Literal:
        if value not in inside:
            yield f"{at}: {value!r} is none of {inside}"
    # JSON has one kind of number, and null where there is none.
    elif not (value is None if shape is type(None) else _is(value, shape)):
        yield f"{at}: {value!r} is no {shape.__name__}"


def _is(value: Any, shape: type) -> bool:
    if shape is float:
        return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    return type(value) is shape
