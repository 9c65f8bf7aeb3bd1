"""Print a summary as a terminal of some width shows it."""

import io

from rich.console import Console

from hydrascope.reports.summary import Summary, render


def printed(summary: Summary, *, full: bool = True, width: int = 160) -> str:
    """Return the text of a summary in a terminal of `width` characters."""
    console = Console(file=io.StringIO(), width=width)
    console.print(render(summary, full=full))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
