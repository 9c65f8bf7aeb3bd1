"""Progress of a run: a bar with rate and time left on a terminal, lines in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

#: Seconds between lines in a log.
EVERY = 30.0

Advance = Callable[[int], None]


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.3g} prompts/s")


@contextmanager
def show_progress(total: int, done: int, show: bool) -> Iterator[Advance]:
    """Show progress on standard error; yield a function that takes the prompts just measured.

    Args:
        total: the number of prompts of the run.
        done: the number of prompts measured before.
        show: whether anything is shown.
    """
    console = Console(stderr=True)
    if not show:
        yield lambda count: None
    elif console.is_terminal:
        with _bar(console) as progress:
            task = progress.add_task("measuring", total=total, completed=done)
            yield lambda count: progress.advance(task, count)
    else:
        yield _lines(total, done)


def _bar(console: Console) -> Progress:
    columns = (TextColumn("measuring"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    return Progress(*columns, console=console, speed_estimate_period=300)


def _lines(total: int, done: int) -> Advance:
    """Print a line for a log, at most one every `EVERY` seconds."""
    start = last = time.monotonic()
    measured = 0

    def advance(count: int) -> None:
        nonlocal last, measured
        measured += count
        now = time.monotonic()
        if now - last < EVERY:
            return
        last = now
        # Nothing is measured yet while this process only waits for others.
        left = f", {(total - done - measured) * (now - start) / measured:,.0f} s left" if measured else ""
        with suppress(OSError):  # a full disk, or a reader that left, must not end the run
            print(f"{done + measured:,} of {total:,} prompts measured{left}", file=sys.stderr, flush=True)

    return advance
