"""The origin of a figure: a line on it, and metadata of its files."""

import json
from collections.abc import Mapping
from typing import Any

import xarray as xr

from hydrascope.reports.flow.naming import model_name, prompts_name, short_hash


def origin(results: xr.Dataset, readout: str) -> dict[str, str]:
    """Return what a figure is of, by name; no paths.

    >>> origin(results, "logit")["ablation"]
    'zero at last'

    Args:
        results: a result, effects' data, or what was measured on one prompt and has no dimension of prompts.
        readout: the readout with its reading of σ.
    """
    attrs, count = results.attrs, f"{results.sizes.get('prompt', 0):,}"
    prompts = prompts_name(attrs)
    of = (f"{count} of {prompts}" if prompts else count) if "prompt" in results.sizes else ""
    named = {
        "model": model_name(attrs),
        "weights": short_hash(str(attrs.get("revision", ""))),
        "prompts": of,
        "ablation": " at ".join(str(attrs[name]) for name in ("ablation", "positions") if name in attrs),
        "readout": readout,
        "hydrascope": str(attrs.get("hydrascope", "")),
    }
    return {name: value for name, value in named.items() if value}


def in_one_line(of: Mapping[str, str]) -> str:
    """Return an origin as the line on a figure."""
    words = {"weights": "weights ", "prompts": "prompts: ", "readout": "Readout: ", "hydrascope": "hydrascope "}
    return " · ".join(f"{words.get(name, '')}{value}" for name, value in of.items())


def as_metadata(title: str, of: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return metadata of a figure's files by ending."""
    described = json.dumps(dict(of), ensure_ascii=False)
    return {
        "png": {"Title": title, "Description": described},
        "pdf": {"Title": title, "Subject": described},
        "svg": {"Title": title, "Description": described},
    }
