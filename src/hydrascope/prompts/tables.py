"""Read prompts from tables, and token ids from a tokenizer's output."""

import json
from collections.abc import Iterable, Mapping, Sequence
from operator import index
from typing import Any

from hydrascope.utils.errors import HydrascopeError

#: The field of `Prompt` for each column; other columns are ignored.
COLUMNS = {
    "prompt": "text",
    "text": "text",
    "tokens": "tokens",
    "input_ids": "tokens",
    "answer": "answer",
    "attribute": "answer",
    "foil": "foil",
    "subject": "subject",
    "counterfactual": "counterfactual",
    "template": "template",
}


def rows_of(source: Any, name: str) -> list[Any] | None:
    """Return the rows of a table or the token ids of an encoding; None for other sources.

    A table is a DataFrame of pandas or polars, a Table of pyarrow, or a Dataset of datasets. An encoding is the output
    of a tokenizer: a mapping with `input_ids`, and often `attention_mask`.

        >>> rows_of({"input_ids": [[5, 7, 0]], "attention_mask": [[1, 1, 0]]}, "prompts")
        [(5, 7)]

    Raises:
        HydrascopeError: a table has no column of prompts, or the mask of an encoding doesn't fit its ids.
    """
    if isinstance(source, Mapping):
        return _unmasked(source, name) if "input_ids" in source else None
    columns = getattr(source, "column_names", None) or getattr(source, "columns", None)
    if columns is None or callable(columns):
        return None
    require_columns([str(column) for column in columns], name)
    for method, arguments in (("to_dicts", ()), ("to_pylist", ()), ("to_dict", ("records",))):
        if hasattr(source, method) and (method != "to_dict" or not hasattr(source, "column_names")):
            return list(getattr(source, method)(*arguments))
    return list(source)


def require_columns(columns: Sequence[str], name: str) -> None:
    """Make sure that a table has a column of prompts, and each column once.

    Raises:
        HydrascopeError: it doesn't; the message names the column, or the columns that there are.
    """
    twice = [column for column in columns if column in COLUMNS and columns.count(column) > 1]
    if twice:
        raise HydrascopeError(f'{name}: two columns are called "{twice[0]}": rename one of them')
    if not {"text", "tokens"} & {COLUMNS.get(column) for column in columns}:
        raise HydrascopeError(
            f'{name}: a table without a column of prompts: call one "prompt" (its columns: {", ".join(columns[:8])})'
        )


def fields_of(row: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Return the fields of `Prompt` in a row.

        >>> fields_of({"prompt": "Iron is", "answer": "Fe", "id": 3}, "row 1")
        {'text': 'Iron is', 'answer': 'Fe'}

    Raises:
        HydrascopeError: two columns give the same field, or a row with a text has a field that is no text.
    """
    fields: dict[str, Any] = {}
    for column, value in row.items():
        field = COLUMNS.get(str(column))
        if field is None or _is_missing(value):
            continue
        if field in fields and column != "attribute":
            raise HydrascopeError(f"{where} gives {field} in two columns: remove one of them")
        fields.setdefault(field, str(value) if field == "template" else value)
    for field in ("answer", "foil", "subject", "counterfactual"):
        if "text" in fields and field in fields and not isinstance(fields[field], str):
            raise HydrascopeError(
                f"{where}: {field} is {fields[field]!r}, which is no text: write it as text, or give Prompts with ids"
            )
    return fields


def token_ids(value: Any, where: str) -> tuple[int, ...]:
    """Return the token ids of a cell: a sequence, a list in JSON, or ids between spaces.

        >>> token_ids("[0, 306, 490]", "row 1")
        (0, 306, 490)
        >>> token_ids("0 306 490", "row 1")
        (0, 306, 490)

    Args:
        where: the name of the cell in messages.

    Raises:
        HydrascopeError: the cell holds something else.
    """
    try:
        if isinstance(value, str):
            value = json.loads(value) if value.lstrip().startswith("[") else value.split()
        return tuple(token_id(each, where) for each in value)
    except (TypeError, ValueError, RecursionError):
        raise HydrascopeError(
            f"{where}: {_shown(value)} is no list of token ids: write whole numbers, as [0, 306, 490]"
        ) from None


def id_or_ids(value: Any, where: str) -> int | tuple[int, ...]:
    """Return the token id of an answer's cell, or all token ids if the cell holds a list.

        >>> id_or_ids("1956", "row 1"), id_or_ids("266 1433", "row 1"), id_or_ids([1956], "row 1")
        (1956, (266, 1433), (1956,))

    Raises:
        HydrascopeError: the cell holds something else.
    """
    if isinstance(value, str):
        several = value.lstrip().startswith("[") or len(value.split()) > 1
    else:
        several = isinstance(value, Iterable)
    return token_ids(value, where) if several else token_id(value, where)


def token_id(value: Any, where: str) -> int:
    """Return the token id of a cell: a whole number, as a number or in digits.

    Raises:
        HydrascopeError: the cell holds something else.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        # pandas makes whole numbers floats where one is missing.
        whole = isinstance(value, str) or (isinstance(value, float) and value.is_integer())
        return int(value) if whole else index(value)
    except (TypeError, ValueError):
        raise HydrascopeError(f"{where}: {_shown(value)} is no token id: write a whole number") from None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:39] + "…"


def _is_missing(value: Any) -> bool:
    """Whether a cell is empty: None, pandas' NA, or a NaN."""
    if value is None or type(value).__name__ == "NAType":
        return True
    return isinstance(value, float) and value != value


def _unmasked(encoding: Mapping[str, Any], name: str) -> list[tuple[int, ...]]:
    """Return the token ids of each prompt of an encoding, without masked ones."""
    prompts = _lists(encoding["input_ids"])
    if prompts and not isinstance(prompts[0], Sequence):
        prompts = [prompts]
    masks = _lists(encoding["attention_mask"]) if encoding.get("attention_mask") is not None else None
    if masks is not None and masks and not isinstance(masks[0], Sequence):
        masks = [masks]
    if masks is None:
        return [tuple(ids) for ids in prompts]
    if [len(ids) for ids in prompts] != [len(mask) for mask in masks]:
        raise HydrascopeError(f"{name}: attention_mask and input_ids differ in shape: give both of the same encoding")
    unmasked = []
    for number, (ids, mask) in enumerate(zip(prompts, masks, strict=True), start=1):
        attended = [position for position, value in enumerate(mask) if value]
        if not attended:
            raise HydrascopeError(f"{name}: attention_mask masks all of prompt {number}: remove it")
        if attended != list(range(attended[0], attended[-1] + 1)):
            raise HydrascopeError(f"{name}: attention_mask has gaps in prompt {number}: mask only its ends")
        unmasked.append(tuple(ids[attended[0] : attended[-1] + 1]))
    return unmasked


def _lists(values: Iterable[Any]) -> list[Any]:
    """Return arrays and tensors as lists."""
    listed = values.tolist() if hasattr(values, "tolist") else list(values)
    return [value.tolist() if hasattr(value, "tolist") else value for value in listed]
