"""Errors of a disk, as one line that says what to do."""

from collections.abc import Iterator
from contextlib import contextmanager

from hydrascope.utils.errors import HydrascopeError


def reason(error: Exception) -> str:
    """What went wrong, in a few words on one line."""
    return (
        (isinstance(error, OSError) and error.strerror)
        or " ".join(str(error).split()).rstrip(".")
        or type(error).__name__
    )


@contextmanager
def disk(failure: str, kept: str = "choose another place or make room") -> Iterator[None]:
    """Say what failed in one line when the disk refuses."""
    try:
        yield
    except OSError as error:
        raise HydrascopeError(f"{failure} ({reason(error)}); {kept}") from error
