"""Know objects of other packages by the names of their classes, without an import."""

from typing import Any


def is_of(thing: Any, package: str, name: str) -> bool:
    """Whether a class of `thing` has this name and comes from this package.

    >>> import torch
    >>> is_of(torch.nn.Linear(1, 1), "torch", "Module"), is_of(3, "torch", "Module")
    (True, False)
    """
    return any(kind.__name__ == name and package_of(kind) == package for kind in type(thing).__mro__)


def package_of(kind: type) -> str:
    """Return the name of the package that a class comes from."""
    return kind.__module__.partition(".")[0]
