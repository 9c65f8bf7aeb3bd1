"""How far a run is: a bar with rate and time left, on a terminal; nothing elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.3g} prompts/s")


@contextmanager
def bar(total: int, done: int, show: bool) -> Iterator[Callable[[int], None]]:
    """A bar of `total` prompts of which `done` are measured; gives what to call with each number of new ones."""
    console = Console(stderr=True)
    progress = Progress(
        TextColumn("measuring"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=console,
        disable=not (show and console.is_terminal),
        speed_estimate_period=300,
    )
    with progress:
        task = progress.add_task("measuring", total=total, completed=done)
        yield lambda count: progress.advance(task, count)
