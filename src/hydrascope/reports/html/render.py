"""One file out of a template, a script, a style and data, in which no text can become markup or code."""

import hashlib
import json
import re
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from html import escape
from importlib.resources import files
from math import isfinite
from typing import Any

#: The page's script: a module an idea. They are joined into one, so no two may give the same name to different things.
MODULES = (
    *("elements", "data", "views", "axes", "matrix", "trace", "scatter", "table", "story", "saving"),
    *("asking", "network", "found", "live", "page"),
)

_IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)

#: What in a text could end a script element, or start one.
_MARKUP = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


def one_file(page: Mapping[str, Any], chunks: Mapping[str, bytes], *, server: bool = False) -> str:
    """The HTML of a page that says `page` and holds `chunks`, compressed arrays, by name.

    Its content security policy lets nothing run but its own script, and nothing be fetched.

    Args:
        server: whether the page may ask the server that it came from.
    """
    template, style = _own("template.html"), _own("page.css")
    script = joined_script()
    filled = {
        "policy": own_policy(server=server),
        "title": escape(f"{page['model']} · hydrascope"),
        "style": style,
        "script": script,
        "page": as_json(page),
        "chunks": "\n".join(_element(name, chunk) for name, chunk in chunks.items()),
    }
    # In one go: what is filled in is never looked at again.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: filled[found[1]], template)


def own_policy(*, server: bool) -> str:
    """A content security policy for a page with the script and the style of `one_file`, and nothing else.

    Args:
        server: whether it may ask the server that it came from.
    """
    connect = " connect-src 'self';" if server else ""
    return (
        f"default-src 'none'; script-src '{_hash(joined_script())}'; style-src '{_hash(_own('page.css'))}';{connect} "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


@cache
def joined_script() -> str:
    """The page's modules as one, in the order in which they need each other."""
    return "\n".join(_IMPORT.sub("", _own(f"script/{name}.js")).replace("\nexport ", "\n") for name in MODULES)


def as_json(value: Any) -> str:
    """JSON in ASCII that may stand inside a script element; what is no finite number is null."""
    return json.dumps(_finite(value), allow_nan=False, separators=(",", ":")).translate(_MARKUP)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _own(name: str) -> str:
    return (files(__package__) / "static" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _element(name: str, chunk: bytes) -> str:
    # Not a type of script: a browser keeps it and does nothing with it.
    return f'<script type="text/plain" id="array-{name}">{b64encode(chunk).decode()}</script>'
