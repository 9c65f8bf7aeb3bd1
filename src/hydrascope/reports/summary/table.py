"""Tables of names and numbers for a terminal."""

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text


def numbers_table(title: str, names: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table with columns of names at the left and of numbers at the right.

    Args:
        title: the table's title.
        names: the headings of the columns of names, which may be folded.
        numbers: the headings of the columns of numbers.
        rows: the cells of each row, taken as they are: brackets are no markup.
    """
    table = Table(title=title, title_justify="left", padding=(0, 0), pad_edge=False)
    for heading in names:
        table.add_column(heading, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", min_width=5)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
