"""Import public names of packages at their first use, since PyTorch takes seconds to import."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_names(package: str, homes: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return a `__getattr__` that imports the public names of `package` from their modules.

        >>> get = lazy_names("hydrascope", {"runs.sweep": ("sweep",)})
        >>> get("sweep").__name__
        'sweep'

    Args:
        package: the full name of the package.
        homes: module names, relative to the package, with the names that each module defines; no names stand for the
            module itself. A name must not equal that of a module in the package: importing the module would replace it.
    """

    def get(name: str) -> Any:
        if name in homes and not homes[name]:
            return import_module(f"{package}.{name}")
        for module, names in homes.items():
            if name in names:
                return getattr(import_module(f"{package}.{module}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get
