"""Print to streams that are closed, full, or no longer read."""

import io
import os
import signal
import sys
from contextlib import suppress
from typing import Any, NoReturn

from hydrascope.cli.encoding import take_any_text
from hydrascope.utils.disk_errors import reason
from hydrascope.utils.errors import HydrascopeError


class ReaderLeft(Exception):
    """The reader of standard output has gone, as `head` does after its lines."""


class _Output(io.FileIO):
    """Standard output, with errors that name it."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            _discard(self.fileno())
            raise ReaderLeft from None
        except OSError as error:
            _discard(self.fileno())
            raise HydrascopeError(
                f"cannot write to standard output ({reason(error)}): send it to another file, or make room"
            ) from error


def open_streams() -> None:
    """Make standard streams take any text, and open closed ones, so that no file replaces them.

    What is printed to a closed or full standard output ends the command; a closed standard error takes everything.
    """
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is taken. Nothing can be written to what is only to be read.
            os.open(os.devnull, flags)
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        encoding = "utf-8" if sys.stdout is None else sys.stdout.encoding
        raw = _Output(1, "w", closefd=False)
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(raw), encoding, line_buffering=raw.isatty())
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  it stays open
    for stream in (sys.stdout, sys.stderr):
        take_any_text(stream)


def print_error(message: str) -> None:
    """Print one line to standard error, or nowhere if it can't be written to."""
    try:
        print(message, file=sys.stderr, flush=True)
    except OSError:
        _discard(2)


def end_like_sigpipe() -> NoReturn:
    """End quietly, as other programs do when the reader of their output has gone."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGPIPE)
    sys.exit(2)


def _discard(number: int) -> None:
    """Send a stream nowhere, so that flushing its buffer at the end of the process succeeds."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
