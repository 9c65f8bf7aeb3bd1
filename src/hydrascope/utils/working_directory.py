"""Refuse a working directory that is gone, in which importing PyTorch ends the process."""

import os

from hydrascope.utils.errors import HydrascopeError


def require_working_directory() -> None:
    """Check that the working directory is still there.

    Raises:
        HydrascopeError: it has been deleted.
    """
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise HydrascopeError(
            "the working directory has been deleted, where PyTorch can't run: change to another folder (cd), and start "
            "again"
        ) from error
