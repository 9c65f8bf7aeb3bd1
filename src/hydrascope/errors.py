"""The one exception that a user is meant to read."""


class HydrascopeError(Exception):
    """Something the user can mend: its message names the thing and says what to do, in one line.

    The command line prints the message alone and exits with code 2; anything else is a bug and keeps its
    traceback.
    """
