"""Prompts from tables and tokenizers: rows of named fields, and token ids with their attention mask."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydrascope.utils.errors import HydrascopeError

#: The field of `Prompt` that a column is taken for; other columns are ignored.
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
}


def rows_of(source: Any, name: str) -> list[Any] | None:
    """Return the rows of a table, or the prompts of an encoding, as lists of ids; None for anything else.

    A table is a DataFrame of pandas or polars, a Table of pyarrow, or a Dataset of datasets. An encoding is what a
    tokenizer returns: a mapping with `input_ids`, and often `attention_mask`.

    Raises:
        HydrascopeError: a table has no column of prompts, or an encoding's mask doesn't fit its ids.
    """
    if isinstance(source, Mapping):
        return _unmasked(source, name) if "input_ids" in source else None
    columns = getattr(source, "column_names", None) or getattr(source, "columns", None)
    if columns is None or callable(columns):
        return None
    columns = [str(column) for column in columns]
    if not {"text", "tokens"} & {COLUMNS.get(column) for column in columns}:
        raise HydrascopeError(
            f'{name}: a table without a column of prompts: call one "prompt" (there are {", ".join(columns[:8])})'
        )
    for method, arguments in (("to_dicts", ()), ("to_pylist", ()), ("to_dict", ("records",))):
        if hasattr(source, method) and (method != "to_dict" or not hasattr(source, "column_names")):
            return list(getattr(source, method)(*arguments))
    return list(source)


def fields_of(row: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Return the fields of `Prompt` that a row gives.

    Raises:
        HydrascopeError: two columns give the same field, or a text's answer is a number, which may be text or an id.
    """
    found: dict[str, Any] = {}
    for column, value in row.items():
        field = COLUMNS.get(str(column))
        if field is None or _is_missing(value):
            continue
        if field in found and column != "attribute":
            raise HydrascopeError(f"{where} gives {field} in two columns: remove one of them")
        found.setdefault(field, value)
    for field in ("answer", "foil", "subject", "counterfactual"):
        if "text" in found and field in found and not isinstance(found[field], str):
            raise HydrascopeError(
                f"{where}: {field} is {found[field]!r}, which is no text: write it as text, or give Prompts with ids"
            )
    return found


def _is_missing(value: Any) -> bool:
    """Whether a cell is empty: None, or one of the values by which tables say so, none of which equals itself."""
    if value is None or type(value).__name__ == "NAType":
        return True
    return isinstance(value, float) and value != value


def _unmasked(encoding: Mapping[str, Any], name: str) -> list[tuple[int, ...]]:
    """Return the token ids that the mask of an encoding leaves, by prompt."""
    prompts = _lists(encoding["input_ids"])
    if prompts and not isinstance(prompts[0], Sequence):
        prompts = [prompts]
    masks = _lists(encoding["attention_mask"]) if encoding.get("attention_mask") is not None else None
    if masks is not None and masks and not isinstance(masks[0], Sequence):
        masks = [masks]
    if masks is None:
        return [tuple(ids) for ids in prompts]
    if [len(ids) for ids in prompts] != [len(mask) for mask in masks]:
        raise HydrascopeError(f"{name}: attention_mask and input_ids differ in shape: give those that belong together")
    found = []
    for number, (ids, mask) in enumerate(zip(prompts, masks, strict=True), start=1):
        seen = [place for place, each in enumerate(mask) if each]
        if not seen:
            raise HydrascopeError(f"{name}: attention_mask leaves nothing of prompt {number}: remove it")
        if seen != list(range(seen[0], seen[-1] + 1)):
            raise HydrascopeError(f"{name}: attention_mask has gaps in prompt {number}: only its ends may be left out")
        found.append(tuple(ids[seen[0] : seen[-1] + 1]))
    return found


def _lists(values: Iterable[Any]) -> list[Any]:
    """Return arrays and tensors as lists."""
    listed = values.tolist() if hasattr(values, "tolist") else list(values)
    return [each.tolist() if hasattr(each, "tolist") else each for each in listed]
