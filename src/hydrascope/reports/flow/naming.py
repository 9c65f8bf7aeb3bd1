"""Names of a run that may be shown: no paths, no control characters."""

import re
from collections.abc import Mapping
from typing import Any

from hydrascope.utils.errors import printable

#: The endings of files that are no part of a model's name.
_ENDINGS = re.compile(r"\.(gguf|safetensors|zarr)$", re.IGNORECASE)
_LONGEST = 60


def model_name(attributes: Mapping[Any, Any]) -> str:
    """Return the display name of a result's model: the last part of a path or of a hub's name.

    >>> model_name({"model": "/home/me/models/SmolLM2-135M.gguf"})
    'SmolLM2-135M'
    """
    return _short(_ENDINGS.sub("", _last_part(str(attributes.get("model", "")))) or "model")


def prompts_name(attributes: Mapping[Any, Any]) -> str:
    """Return the display name of a set of prompts: a name, a file without folder, or nothing.

    >>> prompts_name({"prompts": "data/known_1000.json"})
    'known_1000.json'
    """
    name = str(attributes.get("prompts", ""))
    # Python's default for prompts without a name.
    if name == "prompts":
        return ""
    return _short(name.split(":", 2)[1] if re.match(r"hf:[\w.-]+/[\w.-]+", name) else _last_part(name))


def short_hash(text: str) -> str:
    """Return the first eight characters of a hash, without the name of its kind."""
    return printable(text.rpartition(":")[2])[:8]


def _last_part(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def _short(name: str) -> str:
    """Return a name on one line, of at most `_LONGEST` characters."""
    line = printable(" ".join(name.split()))
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
