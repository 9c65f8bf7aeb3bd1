"""Import public names of packages at their first use, since PyTorch takes seconds to import."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from hydrascope.utils.working_directory import require_working_directory


def export_lazily(package: dict[str, Any], homes: Mapping[str, Sequence[str]]) -> None:
    """Give a package an `__all__`, and a `__getattr__` that imports these names when used.

    Type checkers don't see them. For these, the package imports the same names where only they look:
    `from … import sweep as sweep`, where `as` says that the name is public.

        >>> package = {"__name__": "hydrascope"}
        >>> export_lazily(package, {"runs.sweep": ("sweep",)})
        >>> package["__all__"], package["__getattr__"]("sweep").__name__
        (['sweep'], 'sweep')

    Args:
        package: the package's `globals()`.
        homes: module names, relative to the package, with the names that each module defines; no names stand for the
            module itself. A name must not equal that of a module in the package: importing the module would replace it.
    """
    name = package["__name__"]

    def get(wanted: str) -> Any:
        if wanted in homes and not homes[wanted]:
            return import_module(f"{name}.{wanted}")
        for module, names in homes.items():
            if wanted in names:
                if not module.startswith("utils."):  # the errors themselves, which `except` asks for
                    require_working_directory()
                return getattr(import_module(f"{name}.{module}"), wanted)
        raise AttributeError(f"module {name!r} has no attribute {wanted!r}")

    package["__getattr__"] = get
    package["__all__"] = sorted(each for module, names in homes.items() for each in names or (module,))
