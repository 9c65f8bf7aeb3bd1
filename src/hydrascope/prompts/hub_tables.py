"""Read prompts from a table on the hub, by the library `datasets`.

    hf:ORG/NAME                       its only split, which has a column `prompt` or `tokens`
    hf:ORG/NAME:train[:100]:question  the first 100 rows, whose prompts stand in the column `question`
    hf:ORG/NAME/CONFIG:test           one of several configurations

Other columns are read as those of a table in a file. No code of a repository is run: `datasets` below 4 might, and is
refused.
"""

import re
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from hydrascope.prompts.prompt import PromptSet
from hydrascope.prompts.table_files import prompt_of_row
from hydrascope.prompts.tables import COLUMNS, rows_of
from hydrascope.utils.errors import HydrascopeError, cause

#: The beginning of the name of a table on the hub.
PREFIX = "hf:"

#: A colon in brackets belongs to the split.
_NAME = re.compile(r"hf:(?P<path>[^:]+)(:(?P<split>[^:\[]*(\[[^\]]*\])?))?(:(?P<column>.+))?")

_INSTALL = "pip install 'hydrascope[datasets]'"


def load_table(source: str) -> PromptSet:
    """Load a prompt set from a table on the hub.

        hs.load_prompts("hf:ORG/NAME:train[:100]:question")

    Args:
        source: `hf:ORG/NAME[:split[:column]]`.

    Raises:
        HydrascopeError: `datasets` isn't installed or too old, the table can't be loaded, it has several splits and
            none is named, it has no such column, or a row is no prompt.
    """
    match = _NAME.fullmatch(source)
    if match is None:
        raise HydrascopeError(
            f"{source!r} names no table: write hf:ORG/NAME, hf:ORG/NAME:SPLIT or hf:ORG/NAME:SPLIT:COLUMN"
        )
    organisation, name, configuration = (*match["path"].split("/", 2), "", "")[:3]
    path = f"{organisation}/{name}" if name else organisation
    table = _load(source, path, configuration or None, match["split"] or None)
    rows = rows_of(table, source) if match["column"] is None else _rows_with(table, match["column"], source)
    return PromptSet.of([prompt_of_row(row, source, f"row {n}") for n, row in enumerate(rows or [], start=1)], source)


def _load(source: str, path: str, configuration: str | None, split: str | None) -> Any:
    try:
        datasets = import_module("datasets")
    except ImportError as error:
        raise HydrascopeError(f"{source}: tables on the hub need datasets: {_INSTALL}") from error
    version = str(datasets.__version__)
    if int(version.split(".")[0]) < 4:
        raise HydrascopeError(f"{source}: datasets {version} may run code of a repository: {_INSTALL}")
    try:
        splits = [split] if split else list(datasets.get_dataset_split_names(path, configuration))
        table = datasets.load_dataset(path, configuration, split=splits[0]) if len(splits) == 1 else None
    except Exception as error:
        raise HydrascopeError(
            f"cannot load {source} ({cause(error)}): check the name, or give a table that you loaded to PromptSet.of"
        ) from error
    if table is None:
        raise HydrascopeError(
            f"{source} has the splits {', '.join(splits)}: choose one, as {source}:{(*splits, 'train')[0]}"
        )
    return table


def _rows_with(table: Any, column: str, source: str) -> list[Mapping[str, Any]]:
    """Return the rows of a table, with the prompts that stand in `column`."""
    columns = [str(each) for each in table.column_names]
    if column not in columns:
        raise HydrascopeError(f'{source}: no column "{column}": choose one of {", ".join(columns[:8])}')
    field = "tokens" if COLUMNS.get(column) == "tokens" else "prompt"
    prompts = ("text", "tokens")
    return [
        {field: row[column]} | {name: value for name, value in row.items() if COLUMNS.get(name) not in prompts}
        for row in table
    ]
