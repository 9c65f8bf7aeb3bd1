"""Metadata of a figure's files: the run that it is of."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


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
