"""Errors of a disk, reported in one line with advice."""

from collections.abc import Iterator
from contextlib import contextmanager

from hydrascope.utils.errors import HydrascopeError


def reason(error: Exception) -> str:
    """Return the cause of an error in a few words on one line."""
    return (
        (isinstance(error, OSError) and error.strerror)
        or " ".join(str(error).split()).rstrip(".")
        or type(error).__name__
    )


@contextmanager
def disk(failure: str, advice: str = "choose another path or make room") -> Iterator[None]:
    """Turn an OSError into a HydrascopeError: the failure, its cause and the advice.

    >>> with disk("cannot read it", "give a folder"):
    ...     open("missing")
    Traceback (most recent call last):
    hydrascope.utils.errors.HydrascopeError: cannot read it (No such file or directory); give a folder
    """
    try:
        yield
    except OSError as error:
        raise HydrascopeError(f"{failure} ({reason(error)}); {advice}") from error
