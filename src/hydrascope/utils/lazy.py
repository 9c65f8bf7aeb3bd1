"""Public names of packages, imported when they are first asked for: PyTorch takes seconds to import."""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_names(package: str, homes: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """Return the `__getattr__` of `package` that imports public names from the modules that define them.

        >>> __getattr__ = lazy_names(__name__, {"runs.sweep": ("sweep",)})       # doctest: +SKIP

    Args:
        homes: from a module's name, relative to the package, to the names that it defines; none for the module itself.
            No name may be that of a module of the package: importing that would replace it.
    """

    def get(name: str) -> Any:
        if name in homes and not homes[name]:
            return import_module(f"{package}.{name}")
        for module, names in homes.items():
            if name in names:
                return getattr(import_module(f"{package}.{module}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get
