"""A model behind a page: questions about one prompt, answered by the engine, now."""

from importlib.util import find_spec

from hydrascope.utils.errors import HydrascopeError


def require_server() -> None:
    """Make sure that what the local server needs is installed.

    Raises:
        HydrascopeError: it isn't.
    """
    if not all(map(find_spec, ("starlette", "uvicorn"))):
        raise HydrascopeError("exploring needs a local server: pip install 'hydrascope[explore]'")
