"""Command lines, each in a process of its own: how it ends, what it says, and how long it takes."""

import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# What commands import, so that each process has it from the first.
import matplotlib.pyplot  # noqa: F401
import transformers.models.gpt2.modeling_gpt2
import transformers.models.llama.modeling_llama  # noqa: F401

from faults.processes import PROCESSES
from hydrascope.cli import app
from hydrascope.explorer import server
from hydrascope.reports import figures

#: Of CPU time, and by the clock where it waits: what takes longer is ended.
SECONDS, WAITED = 60, 180
#: Of address space: what asks for more is refused it.
MEMORY = 16 << 30


@dataclass(frozen=True)
class Ended:
    """How a command line ended.

    Attributes:
        code: its exit code; below 0 where it was ended.
        out, err: what it said.
        seconds: of CPU time that it took; NaN where it was ended.
    """

    code: int
    out: str
    err: str
    seconds: float


def ended(arguments: Sequence[str], folder: Path) -> Ended:
    """`hydrascope` with these arguments; what it says passes through `folder`."""
    said = [folder / f"said.{name}" for name in ("out", "err", "seconds")]
    process = PROCESSES.Process(target=_command, args=(list(arguments), said))
    process.start()
    process.join(WAITED)
    if process.is_alive():
        process.kill()
        process.join()
    out, err, seconds = (file.read_text(errors="surrogateescape") if file.exists() else "" for file in said)
    for file in said:
        file.unlink(missing_ok=True)
    return Ended(process.exitcode or 0, out, err, float(seconds or "nan"))


def _command(arguments: list[str], said: list[Path]) -> None:
    """The whole of a process."""
    for number, file in zip((1, 2), said, strict=False):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    _at_home(said[0].parent / "home" / "here")
    _in_short()
    sys.argv = ["hydrascope", *arguments]
    start = time.process_time()
    try:
        app.main()
    finally:
        said[2].write_text(str(time.process_time() - start))


def _at_home(here: Path) -> None:
    """Paths that are named by chance are in `here`, or not far above it."""
    here.mkdir(parents=True)
    os.chdir(here)
    os.environ["HOME"] = str(here)


def _in_short() -> None:
    """A server that is not asked to serve, and one file a picture: neither is what is tried."""
    server.serve = lambda *arguments, **options: None
    figures.style.FORMATS = ("png",)
