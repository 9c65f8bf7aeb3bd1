"""Fill the page's template with script, style and data; no text can become markup or code."""

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

#: The modules of the page's script. They are joined into one, so top-level names must differ between modules.
MODULES = (
    *(
        "elements",
        "data",
        "views",
        "axes",
        "colours",
        "drill",
        "bars",
        "key",
        "matrix",
        "trace",
        "scatter",
        "histogram",
        "table",
        "story",
        "saving",
    ),
    *("asking", "network", "flow", "found", "attention", "map", "live", "page"),
)

_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
_IMPORT = re.compile(r"^import [^;]*;\n", re.MULTILINE)

#: Characters that could start or end a script element.
_MARKUP = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


def one_file(page: Mapping[str, Any], chunks: Mapping[str, bytes], first: str = "", *, server: bool = False) -> str:
    """Return the HTML of a page.

    The page's content security policy allows its own script alone, and no download.

    Args:
        page: the content, as JSON values.
        chunks: the compressed arrays, by name.
        first: the first screen, as HTML whose texts are escaped.
        server: whether the page may send requests to its own server.
    """
    template, style = _static_text("template.html"), _static_text("page.css")
    script = joined_script()
    filled = {
        "policy": policy_of(first, server=server),
        "first": first,
        "title": escape(f"{page['model']} · hydrascope"),
        "style": style,
        "script": script,
        "page": as_json(page),
        "chunks": "\n".join(_element(name, chunk) for name, chunk in chunks.items()),
    }
    # One pass fills all fields, so that braces in the data stay as they are.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: filled[match[1]], template)


def policy_of(first: str, *, server: bool) -> str:
    """Return the security policy of a page with the first screen `first`."""
    return own_policy(*_STYLE.findall(first), server=server)


def still_page(title: str, body: str) -> str:
    """Return the HTML of a page without script or data, in the style of reports.

    Args:
        title: the title, which is escaped here.
        body: the content as HTML whose texts are escaped.
    """
    style = _static_text("page.css") + _static_text("comparison.css")
    policy = f"default-src 'none'; style-src '{_hash(style)}'; img-src data:; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def own_policy(*styles: str, server: bool) -> str:
    """Return a security policy that allows the script and the styles of `one_file` alone.

    Args:
        styles: the styles of the first screen's pictures.
        server: whether the page may send requests to its own server.
    """
    connect = " connect-src 'self';" if server else ""
    allowed = " ".join(f"'{_hash(style)}'" for style in (_static_text("page.css"), *styles))
    return (
        f"default-src 'none'; script-src '{_hash(joined_script())}'; style-src {allowed};"
        f"{connect} img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


@cache
def joined_script() -> str:
    """Return the page's modules joined into one script, in the order of their imports."""
    return "\n".join(_IMPORT.sub("", _static_text(f"script/{name}.js")).replace("\nexport ", "\n") for name in MODULES)


def as_json(value: Any) -> str:
    """Return ASCII JSON that is safe inside a script element; NaN and infinities become null."""
    return json.dumps(_finite(value), allow_nan=False, separators=(",", ":")).translate(_MARKUP)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _static_text(name: str) -> str:
    return (files(__package__) / "static" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _element(name: str, chunk: bytes) -> str:
    # A browser does not run a script element of this type.
    return f'<script type="text/plain" id="array-{name}">{b64encode(chunk).decode()}</script>'
