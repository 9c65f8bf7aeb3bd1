"""Write a result as a table or as netCDF, by the ending of the file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hydrascope.utils.errors import HydrascopeError

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

#: The endings of files that hold a table, and of one that holds the whole result.
TABLES, WHOLE = (".csv", ".csv.gz", ".json", ".parquet"), ".nc"


def write_export(results: "xr.Dataset", out: Path) -> str:
    """Write the tidy table of a result or, to `.nc`, all of its variables; return a note.

    Raises:
        HydrascopeError: the file can't be written, or a package is missing.
    """
    if out.name.endswith(WHOLE):
        _writing(out, lambda: results.load().to_netcdf(out))
        return f"{len(results.variables)} variables: {out}"
    from hydrascope.measures.table import tidy

    table = tidy(results)
    _writing(out, lambda: _write_table(table, out))
    return f"{len(table):,} rows: {out}"


def _write_table(table: "pd.DataFrame", out: Path) -> None:
    if out.name.endswith(".parquet"):
        table.to_parquet(out, index=False)
    elif out.name.endswith(".json"):
        _write_json(table, out)
    else:
        table.to_csv(out, index=False)


def _write_json(table: "pd.DataFrame", out: Path) -> None:
    """Write a list of records, a line each. pandas would round them to 15 decimals."""
    from hydrascope.reports.summary.serialize import plain

    with out.open("w", encoding="utf-8", errors="replace", newline="\n") as file:
        file.write("[")
        for place, record in enumerate(table.to_dict("records")):
            text = json.dumps(plain(record), ensure_ascii=False, allow_nan=False)
            file.write(f"{',' if place else ''}\n {text}")
        file.write("\n]\n")


def _writing(out: Path, write: Callable[[], object]) -> None:
    """Write, and turn what can go wrong into one line."""
    try:
        write()
    except ImportError as error:
        raise HydrascopeError(
            f"cannot write {out} without pyarrow: pip install 'hydrascope[prompts]', or give another ending"
        ) from error
    except OSError as error:
        raise HydrascopeError(f"cannot write {out} ({error.strerror or error}): choose another path") from error
