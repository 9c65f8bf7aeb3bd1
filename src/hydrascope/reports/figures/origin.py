"""Metadata of a figure's files: the run that it is of, or the runs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from hydrascope.measures import Sigma, per_prompt
from hydrascope.reports.figures import style
from hydrascope.reports.flow.source import as_named, source_of


def as_metadata(title: str, of: Mapping[str, str] | Sequence[Mapping[str, str]]) -> dict[str, dict[str, Any]]:
    """Return metadata of a figure's files by ending.

    >>> as_metadata("figure7", {"model": "tiny"})["png"]
    {'Title': 'figure7', 'Description': '{"model": "tiny"}'}

    Args:
        title: the title of the figure.
        of: the run by name (`hydrascope.reports.flow.source.as_named`), or those of several results.
    """
    described = json.dumps(of, ensure_ascii=False)
    return {
        "png": {"Title": title, "Description": described},
        "pdf": {"Title": title, "Subject": described},
        "svg": {"Title": title, "Description": described},
    }


def save_of_several(
    figure: Figure,
    results: Mapping[str, xr.Dataset],
    folder: Path,
    name: str,
    readout: str | None = None,
    sigma: Sigma | None = None,
) -> list[Path]:
    """Write a figure of several results; the metadata of its files name the run of each.

        >>> paths = save_of_several(Figure(), {"a": results, "b": results}, Path("figures"), "comparison")

    Args:
        figure: the figure.
        results: the results by name; also `readout` and `sigma` are those of the figure.
        folder: the folder.
        name: the name of the files, without an ending.
        readout: the readout's label.
        sigma: the reading of σ.

    Returns:
        The files written.

    Raises:
        HydrascopeError: the folder cannot be written.
    """
    runs = [{"name": label, **as_named(source_of(per_prompt(each, readout, sigma)))} for label, each in results.items()]
    return style.save(figure, folder, name, as_metadata(name, runs))
