"""One page that shows a result: a file that opens from disk, needs no network, and can be sent to anyone."""

from pathlib import Path

import xarray as xr

from hydrascope.measures import Bootstrap
from hydrascope.reports.html.render import one_file
from hydrascope.reports.html.report_data import page_data
from hydrascope.utils.errors import HydrascopeError

__all__ = ["report"]


def report(
    results: xr.Dataset, out: str | Path, *, bootstrap: Bootstrap | None = None, overwrite: bool = False
) -> Path:
    """Write a page that shows `results`: the verdict, who responds to what, and every prompt.

        >>> hs.report(hs.open_results("gpt2.zarr"), "report.html")               # doctest: +SKIP

    Every number on it is computed here; the page shows them. What it holds, and how to share it: docs/report.md.

    Args:
        results: of `run` or `sweep`, of experiments, too. Of what was not kept there are no views.
        out: the file to write.
        bootstrap: how intervals are drawn.
        overwrite: replace the file if it is there.

    Returns:
        `out`.

    Raises:
        HydrascopeError: there is such a file, or it can't be written; the results are none that a page can show.
    """
    path = Path(out)
    if path.exists() and not overwrite:
        raise HydrascopeError(f"{path} exists: choose another place, or overwrite it")
    text = one_file(*page_data(results, bootstrap or Bootstrap()))
    try:
        path.write_text(text, encoding="utf-8", errors="replace", newline="\n")
    except OSError as error:
        raise HydrascopeError(f"cannot write {path} ({error.strerror or error}): choose another place") from error
    return path
