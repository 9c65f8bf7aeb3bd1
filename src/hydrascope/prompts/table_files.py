"""Read prompts from tables in files: `.csv`, `.csv.gz` and `.parquet`.

The columns are named as in `hydrascope.prompts.tables.COLUMNS`; others are ignored. An empty cell is a missing value.
Token ids stand in a column `tokens`: a list in parquet, `[0, 306, 490]` or `0 306 490` in CSV. A row with token ids has
its answer and its foil as token ids, too, and its counterfactual as a list of them; an answer may be a list as well.
"""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from hydrascope.prompts.prompt import Prompt, prompt_of
from hydrascope.prompts.tables import COLUMNS, fields_of, id_or_ids, require_columns, rows_of, token_id, token_ids
from hydrascope.utils.errors import HydrascopeError, cause
from hydrascope.utils.text import counted


def read_csv(text: str, where: str) -> Iterator[Prompt]:
    r"""Yield the prompts of a CSV table; its first line names the columns.

        >>> next(read_csv("prompt,answer\nIron is,Fe\n", "facts.csv")).answer
        'Fe'

    Args:
        where: the name of the file in messages.

    Raises:
        HydrascopeError: the table has no column of prompts, or one twice; or a row has too many or too few cells, or
            is no prompt. The message names the line.
    """
    records = _records(text, where)
    _, columns = next(records)
    if len(columns) == 1 and set(columns[0]) & set(";\t"):
        raise HydrascopeError(f"{where}, line 1: one column, {columns[0]!r}: separate columns by commas")
    columns = [column.strip() for column in columns]
    require_columns(columns, where)
    for line, cells in records:
        if len(cells) != len(columns):
            held = counted(len(cells), "cell", "cells")
            raise HydrascopeError(
                f"{where}, line {line}: {held} for {len(columns)} columns: put cells with a comma in quotes, and leave "
                "none out"
            )
        row = {column: cell or None for column, cell in zip(columns, cells, strict=True)}
        yield prompt_of_row(row, where, f"line {line}")


def _records(text: str, where: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row of a CSV text that isn't blank, with the line on which it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise HydrascopeError(f"{where}, line {line}: not CSV ({error}): correct it there") from error


def unzipped(data: bytes, where: str) -> bytes:
    """Return the content of a gzip file.

    Raises:
        HydrascopeError: it isn't one, or is damaged.
    """
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise HydrascopeError(f"{where}: not a whole gzip file ({error}): compress it again, or give a .csv") from error


def read_parquet(data: bytes, where: str) -> Iterator[Prompt]:
    """Yield the prompts of a parquet table.

    Raises:
        HydrascopeError: pyarrow isn't installed, the file is damaged, the table has no column of prompts, or one
            twice, or a row is no prompt. The message names the row, counted from 1.
    """
    import pandas as pd

    try:
        table = pd.read_parquet(io.BytesIO(data), engine="pyarrow")
    except ImportError as error:
        raise HydrascopeError(
            f"{where}: .parquet files need pyarrow: pip install 'hydrascope[prompts]', or save the table as .csv"
        ) from error
    except Exception as error:
        raise HydrascopeError(f"{where}: not a whole parquet file ({cause(error)}): write it again") from error
    for number, row in enumerate(rows_of(table, where) or [], start=1):
        yield prompt_of_row(row, where, f"row {number}")


def prompt_of_row(row: Mapping[Any, Any], where: str, place: str) -> Prompt:
    """Return the prompt of a table's row.

        >>> prompt_of_row({"tokens": "0 306 490", "answer": "1956"}, "facts.csv", "line 2")
        Prompt(text='', answer=1956, foil=None, subject=None, counterfactual=None, tokens=(0, 306, 490), template=None)

    Args:
        where: the name of the table in messages.
        place: the name of the row in it.

    Raises:
        HydrascopeError: the row is no prompt; the message names the column.
    """
    column_of = {COLUMNS[str(column)]: column for column in row if str(column) in COLUMNS}

    def cell(field: str) -> str:
        return f'{where}, {place}, column "{column_of[field]}"'

    fields = fields_of(row, f"{where}, {place}")
    if "tokens" in fields:
        fields["tokens"] = token_ids(fields["tokens"], cell("tokens"))
    if "tokens" in fields and "text" not in fields:
        readers = {"answer": id_or_ids, "foil": token_id, "counterfactual": token_ids}
        fields |= {name: read(fields[name], cell(name)) for name, read in readers.items() if name in fields}
    elif not isinstance(text := fields.get("text"), str) or not text.strip():
        shown = "empty" if text is None or isinstance(text, str) else f"{text!r}, which is no text"
        column = cell("text" if "text" in column_of else "tokens")
        raise HydrascopeError(f"{column}: {shown}: write a prompt, or remove the row")
    return prompt_of(Prompt(**fields), f"{where}, {place}")
